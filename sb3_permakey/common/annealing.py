"""Quantities that move from one value to another over a number of updates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Annealing:
    """A value that moves exponentially from one to another over some updates and then stays (Schwarzer et al. 2023).

    A discount is moved by its distance from 1 (`annealed_discount`), so that its horizon grows at a constant rate.
    https://arxiv.org/abs/2305.19452, section 4.

    :param start: value at first, positive
    :param end: value from then on, positive
    :param updates: how many updates lie between
    :raises ValueError: for values that are not positive
    """

    start: float
    end: float
    updates: int

    def __post_init__(self) -> None:
        if self.start <= 0 or self.end <= 0 or self.updates < 1:
            raise ValueError(f"an annealed value goes between positive numbers over 1 update or more, not {self}")

    def value(self, updates: int) -> float:
        """The value after a number of updates: start (end / start)^(updates / all)."""
        share = min(updates / self.updates, 1.0)
        return self.start * (self.end / self.start) ** share


def annealed_steps(steps: int | Sequence[int], updates: int) -> int:
    """n of n-step targets after a number of updates.

    :param steps: n, or (from, to, over how many updates), a list too: as a saved agent's file keeps it
    """
    return round(Annealing(*_three("n_steps", steps)).value(updates)) if isinstance(steps, Sequence) else steps


def most_steps(steps: int | Sequence[int]) -> int:
    """The largest n of n-step targets.

    :param steps: n, or (from, to, over how many updates)
    """
    return max(steps[:2]) if isinstance(steps, Sequence) else steps


def annealed_discount(gamma: float | Sequence[float], updates: int) -> float:
    """The discount factor after a number of updates.

    :param gamma: the factor, or (from, to, over how many updates), both less than 1; a list too
    """
    if not isinstance(gamma, Sequence):
        return gamma
    start, end, over = _three("gamma", gamma)
    return 1 - Annealing(1 - start, 1 - end, int(over)).value(updates)


def _three(name: str, values: Sequence[Any]) -> tuple[Any, Any, Any]:
    if isinstance(values, str) or len(values) != 3:
        raise ValueError(f"{name} must be a number or (from, to, over how many updates), got {values!r}.")
    return values[0], values[1], values[2]
