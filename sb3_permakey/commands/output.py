"""What commands print: what they did, and the command that comes next."""

from __future__ import annotations

import os
import shlex
from typing import Any

NEXT_VARIABLE = "SB3_PERMAKEY_NEXT"
"""With 0 in this environment variable commands do not name the next one: for scripts that go on by themselves."""


def say(text: str) -> None:
    """Print a line, or several, at once."""
    print(text, flush=True)


def name_next(*parts: Any) -> None:
    """Print the command that comes next, as a shell takes it."""
    suggest(shlex.join(["sb3-permakey", *map(str, parts)]))


def suggest(step: str) -> None:
    """Print the step that comes next, whatever it is."""
    if os.environ.get(NEXT_VARIABLE) != "0":
        say(f"next: {step}")
