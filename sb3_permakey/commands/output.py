"""What commands print: what they did, and the command that comes next."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import suppress
from typing import Any

NEXT_VARIABLE = "SB3_PERMAKEY_NEXT"
"""With 0 in this environment variable commands do not name the next one: for scripts that go on by themselves."""

READER_IS_GONE = 141
"""Exit code that shells give to what a closed pipe stopped."""


def say(text: str) -> None:
    """Print a line, or several, at once; where whoever read it, head perhaps, is gone, the command ends in silence."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # What is left to print has nowhere to go; Python would say so again at the end.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(READER_IS_GONE)


def name_next(*parts: Any) -> None:
    """Print the command that comes next, as a shell takes it."""
    suggest(shlex.join(["sb3-permakey", *map(str, parts)]))


def suggest(step: str) -> None:
    """Print the step that comes next, whatever it is."""
    if os.environ.get(NEXT_VARIABLE) != "0":
        say(f"next: {step}")
