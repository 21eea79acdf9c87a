"""Starts the command line, whose imports take seconds: Ctrl-C while they last ends with a sentence too.

A package of its own, for whatever lies in `sb3_permakey` is imported after all that this imports.
"""

from __future__ import annotations

import importlib.metadata
import sys


def main() -> None:
    """Run `sb3_permakey.cli.main`; `--version` is answered without it."""
    if sys.argv[1:] == ["--version"]:
        print(f"sb3-permakey {importlib.metadata.version('sb3-permakey')}")
        return
    try:
        from sb3_permakey.cli import main as run
    except KeyboardInterrupt:
        print("sb3-permakey: stopped; nothing was done", file=sys.stderr)
        sys.exit(130)
    run()
