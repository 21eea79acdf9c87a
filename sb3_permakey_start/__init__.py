"""Starts the command line, whose imports take seconds: Ctrl-C while they last ends with a sentence too.

A package of its own, for whatever lies in `sb3_permakey` is imported after all that this imports.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run `sb3_permakey.cli.main`."""
    try:
        from sb3_permakey.cli import main as run
    except KeyboardInterrupt:
        print("sb3-permakey: stopped; nothing was done", file=sys.stderr)
        sys.exit(130)
    run()
