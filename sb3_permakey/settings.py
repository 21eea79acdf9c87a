"""What settings may be: each function refuses what is outside by one sentence that names the setting and its value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

Number = int | float | None
"""A setting; None, which stands for a default found elsewhere, is always allowed."""
NO_DEFAULT = tyro.conf.arg(help_behavior_hint="")
"""Annotates a setting that is None by default: the help of its flag does not name this value."""
MOST_SEED = 2**31 - 1
"""The largest seed that an emulator takes."""


def require_at_least(least: int, **settings: Number) -> None:
    """Raise ValueError unless the settings are finite numbers from `least` on."""
    for name, value in settings.items():
        if value is not None and not least <= value < math.inf:
            raise ValueError(f"{name} must be at least {least}, not {value}")


def require_range(least: float, most: float, **settings: Number) -> None:
    """Raise ValueError unless the settings are from `least` to `most`, both included."""
    for name, value in settings.items():
        if value is not None and not least <= value <= most:
            raise ValueError(f"{name} must be from {least} to {most}, not {value}")


def require_positive(**settings: Number) -> None:
    """Raise ValueError unless the settings are finite numbers above 0."""
    for name, value in settings.items():
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive, not {value}")


def require_seed(seed: int, most: int = MOST_SEED) -> None:
    """Raise ValueError unless a seed is from 0 to `most`."""
    require_range(0, most, seed=seed)


def require_choice(choices: Sequence[str], **settings: str | None) -> None:
    """Raise ValueError unless the settings are among the choices."""
    for name, value in settings.items():
        if value is not None and value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")


def require_one(**settings: Any) -> None:
    """Raise ValueError unless exactly one of the settings is given: is not None."""
    given = [name for name, value in settings.items() if value is not None]
    if len(given) != 1:
        raise ValueError(f"give one of {', '.join(settings)}, not {' and '.join(given) or 'none'}")


def require_suffix(suffix: str | Sequence[str], **paths: Path | None) -> None:
    """Raise ValueError unless the paths end in `suffix`, or in one of several, small or capital.

    A file's name tells its format.
    """
    suffixes = (suffix,) if isinstance(suffix, str) else suffix
    for name, path in paths.items():
        if path is not None and path.suffix.lower() not in suffixes:
            raise ValueError(f"{name} must name a {' or '.join(suffixes)} file, not {path}")
