"""Losses that the host reads only now and then, since it waits for a GPU each time it does."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class TrainingDivergedError(RuntimeError):
    """A loss that is not finite; the last saved state is intact."""


class UnreadLosses:
    """The losses of the steps since the host last looked whether all were finite.

    :param state: the last good state, for the error's message
    :param at_once: whether each step's are read when they are noted, which costs nothing on a CPU
    """

    def __init__(self, state: Path, *, at_once: bool) -> None:
        self.state, self.at_once = state, at_once
        self._noted: list[tuple[int, Any, Tensor]] = []

    def note(self, step: int, total: Tensor, losses: Any) -> None:
        """Keep those of a step.

        :param step: its number
        :param total: the loss that is minimised
        :param losses: its parts, a NamedTuple of scalars
        :raises TrainingDivergedError: if they are read at once, and the total is not finite
        """
        self._noted.append((step, losses._fields, torch.stack([total, *losses]).detach()))
        if self.at_once:
            self.read()

    def read(self) -> None:
        """Look at all that were noted, by one copy to the host.

        :raises TrainingDivergedError: naming the first step whose total is not finite
        """
        noted, self._noted = self._noted, []
        rows = torch.stack([values for _, _, values in noted]).tolist() if noted else []
        for (step, names, _), (total, *parts) in zip(noted, rows, strict=True):
            if not math.isfinite(total):
                raise TrainingDivergedError(
                    f"a loss is not finite at step {step}: {dict(zip(names, parts, strict=True))}; "
                    f"{self.state} is the last good state"
                )
