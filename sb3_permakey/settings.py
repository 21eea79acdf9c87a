"""Checks of the settings of commands: one sentence for each that is out of its range."""

from __future__ import annotations

from pathlib import Path


def require_range(settings: object, low: float, high: float | None, *names: str) -> None:
    """Raise ValueError unless each of these settings is from `low` to `high`; one that is None passes.

    :param settings: has the settings as attributes
    :param low: least value
    :param high: greatest value; None: no bound
    :param names: of the settings
    """
    for name in names:
        value = getattr(settings, name)
        if value is None or low <= value <= (float("inf") if high is None else high):
            continue
        wanted = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be {wanted}, not {value}")


def require_suffix(settings: object, suffixes: tuple[str, ...], *names: str) -> None:
    """Raise ValueError unless each of these paths ends in one of the suffixes; one that is None passes.

    :param settings: has the paths as attributes
    :param suffixes: with their dots, in small letters
    :param names: of the paths
    """
    for name in names:
        path = getattr(settings, name)
        if path is not None and Path(path).suffix.lower() not in suffixes:
            raise ValueError(f"{name} must name a {' or '.join(suffixes)} file, not {path}")
