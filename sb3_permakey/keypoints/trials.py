"""What a detector tries out on its first frames: how precisely to compute, and where."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, TypeVar

TRIAL_FRAMES = 4096
"""Of so many frames some are computed in float32 too."""
UNTIMED_CALLS, TIMED_CALLS = 20, 100
"""Calls of a `PlacementTrial`."""
Result = TypeVar("Result")


class PrecisionTrial:
    """Picks the frames on which two precisions are compared: the 1st, 2nd, 4th, ..., up to `TRIAL_FRAMES`."""

    def __init__(self) -> None:
        self.frames_seen = 0

    def rows(self, count: int) -> list[int]:
        """Which of the next `count` frames are compared, as indices into them."""
        numbers = range(self.frames_seen + 1, min(self.frames_seen + count, TRIAL_FRAMES) + 1)
        self.frames_seen += count
        return [number - numbers.start for number in numbers if number & (number - 1) == 0]


class PlacementTrial:
    """Times two ways to compute the same by turns, to go on with the quicker one.

    :param untimed: calls that warm up
    :param timed: calls after them, whose median counts
    :param clock: gives seconds
    """

    def __init__(
        self,
        untimed: int = UNTIMED_CALLS,
        timed: int = TIMED_CALLS,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._untimed, self._timed, self._clock = untimed, timed, clock
        self._seconds: list[tuple[float, float]] = []

    def time(self, first: Callable[[], Result], second: Callable[[], Any]) -> Result:
        """Do both; what the first one gives."""
        begun = self._clock()
        result = first()
        between = self._clock()
        second()
        self._seconds.append((between - begun, self._clock() - between))
        return result

    @property
    def is_over(self) -> bool:
        """Whether all calls are made."""
        return len(self._seconds) == self._untimed + self._timed

    @property
    def medians(self) -> tuple[float, float]:
        """Median seconds of the first and the second, those of calls that warm up left out."""
        first, second = zip(*self._seconds[self._untimed :], strict=True)
        return statistics.median(first), statistics.median(second)

    @property
    def second_is_quicker(self) -> bool:
        """Whether the second takes less time."""
        first, second = self.medians
        return second < first
