"""No memory."""

from __future__ import annotations

from typing import ClassVar

import torch

from sb3_permakey.common.memory.cell import MemoryCell, States


class NoMemory(MemoryCell):
    """Passes its inputs on."""

    remembers: ClassVar[bool] = False

    def __init__(self, inputs: int, units: int, layers: int) -> None:
        super().__init__()
        self.outputs, self.state_shape = inputs, (0, 0, 0)

    def window(
        self,
        inputs: torch.Tensor,
        states: States | None = None,
        episode_starts: torch.Tensor | None = None,
        lengths: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, States]:
        """The inputs."""
        return inputs, ()
