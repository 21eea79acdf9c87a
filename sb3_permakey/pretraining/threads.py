"""How many threads the steps of a training take on a CPU: timed, and looked at again now and then.

More threads are not always faster: where other processes want the same cores, each small operation waits for the
thread that is served last.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""By which a user, or torchrun, sets the number of threads."""
TIMED_STEPS = 3
"""Steps of each number that are timed, after one that gets used to it."""
GAIN = 0.9
"""Another number is taken where its step lasts less than this share."""
HOPELESS = 2.0
"""A number is given up when one step lasts this many times the best one's: it may last 25 times as long."""
AGAIN_AFTER_S, SHARE_OF_LOOKING = 120.0, 0.05
"""The choice is looked at again after so long, and longer where that took more than this share of the time."""


class StepThreads:
    """Runs steps on the number of torch's threads with which they are fastest, as far as that is not set by others.

    From one on, twice and half as many are tried, never more than torch had, while they make steps shorter by a tenth.
    Numbers alter a step's result by rounding alone.

    :param say: is told the choice
    :param free: whether the number may be chosen; otherwise nothing is changed
    :param clock: seconds
    """

    def __init__(
        self, say: Callable[[str], None], *, free: bool, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.most = torch.get_num_threads()
        self.free = free and self.most > 1
        self.chosen = 1 if self.free else self.most
        self.say, self.clock = say, clock
        self.begin("")

    def begin(self, name: str) -> None:
        """Steps of another kind follow: look at once, and say what is chosen.

        :param name: of the steps
        """
        self.name = name
        self._said: int | None = None
        self._begin_to_look()

    @contextmanager
    def step(self) -> Iterator[None]:
        """One step, within; the next one may have another number of threads."""
        started = self.clock()
        yield
        now = self.clock()
        if not self.free:
            return
        if self._trying is None:
            if now >= self._again_at:
                self._begin_to_look()
            return
        self._lasted.append(now - started)
        hopeless = self._lasted[-1] > HOPELESS * min(self._medians.values(), default=float("inf"))
        if hopeless or len(self._lasted) > TIMED_STEPS:
            self._medians[self._trying] = self._lasted[-1] if hopeless else statistics.median(self._lasted[1:])
            self._try_next(now)

    def release(self) -> None:
        """As many threads as at first."""
        if self.free:
            torch.set_num_threads(self.most)

    def _begin_to_look(self) -> None:
        self._medians: dict[int, float] = {}
        self._look_began = self.clock()
        self._try(self.chosen)

    def _try(self, number: int | None) -> None:
        self._trying, self._lasted = number, list[float]()
        if self.free:
            torch.set_num_threads(number or self.chosen)

    def _try_next(self, now: float) -> None:
        """Go on with the next number to be timed, or with the best one."""
        fastest = min(self._medians, key=self._medians.__getitem__)
        if self._medians[fastest] < GAIN * self._medians[self.chosen]:
            self.chosen = fastest
        around = (self.chosen // 2, min(2 * self.chosen, self.most))
        self._try(next((number for number in around if number and number not in self._medians), None))
        if self._trying is None:
            self._again_at = now + max(AGAIN_AFTER_S, (now - self._look_began) / SHARE_OF_LOOKING)
            if self._said != self.chosen:
                self._said = self.chosen
                times = ", ".join(f"{seconds:.2f} s on {number}" for number, seconds in sorted(self._medians.items()))
                self.say(f"{self.name}: {self.chosen} of {self.most} threads (a step takes {times})")


def threads_are_free(device: torch.device, processes: int) -> bool:
    """Whether the number of threads may be chosen: nobody set it, and no other process of the run shares the cores.

    :param device: where the steps are computed; threads matter on a CPU alone
    :param processes: of the same run
    """
    if device.type != "cpu" or processes > 1 or any(os.environ.get(name) for name in VARIABLES):
        return False
    # torch.set_num_threads leaves no other trace than a number that is not torch's own.
    return torch.get_num_threads() in _default_numbers()


def _default_numbers() -> set[int]:
    """Numbers of threads that torch may have chosen itself: of the processors, or of their cores."""
    count = os.cpu_count() or 1
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(count))
    return {count, _cores(set(range(count))), len(usable), _cores(usable)}


def _cores(processors: set[int]) -> int:
    """How many cores these processors are; two of one core where nothing tells."""
    siblings = set()
    for number in processors:
        try:
            place = Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list")
            siblings.add(place.read_text())
        except OSError:
            return max(len(processors) // 2, 1)
    return len(siblings)
