"""What carries an agent's history from step to step: the face of a memory cell."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import nn

States = tuple[torch.Tensor, ...]
"""What a memory holds: (layers, N, units) each, such as an LSTM's hidden and cell state; without a memory nothing."""


class MemoryCell(nn.Module):
    """A memory between the features and the values, made by `cell(inputs, units, layers)`.

    A kind of memory says what it holds where an episode begins and how it reads a window of steps at once: by one call
    of a library or a parallel scan, never by a loop over the steps. Its constructor takes the width of what it reads,
    the units of each layer, and how many layers are stacked.
    """

    remembers: ClassVar[bool] = True
    """False for a cell without a state, whose agents may learn from single transitions."""
    outputs: int
    """Width of what it gives to the values."""
    state_shape: tuple[int, int, int]
    """Shape of one environment's state: (parts, layers, units)."""

    def initial_states(self, count: int, device: torch.device | str) -> States:
        """States of ``count`` episodes that begin: zeros, unless a cell has others.

        :param count: N
        :param device: where they are made
        :return: (layers, N, units) each
        """
        parts, layers, units = self.state_shape
        return tuple(torch.zeros(layers, count, units, device=device) for _ in range(parts))

    def step(self, inputs: torch.Tensor, states: States, episode_starts: torch.Tensor) -> tuple[torch.Tensor, States]:
        """One step of N environments.

        :param inputs: (N, inputs)
        :param states: (layers, N, units) each
        :param episode_starts: (N,) bool, where the state is the initial one instead
        :return: (N, outputs), and the states after it
        """
        outputs, states = self.window(inputs.unsqueeze(0), states, episode_starts.unsqueeze(0))
        return outputs.squeeze(0), states

    @abstractmethod
    def window(
        self,
        inputs: torch.Tensor,
        states: States | None = None,
        episode_starts: torch.Tensor | None = None,
        lengths: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, States]:
        """All steps of B windows.

        :param inputs: (T, B, inputs)
        :param states: before the windows, (layers, B, units) each; None for the initial ones
        :param episode_starts: (T, B) bool, where the state before the step is the initial one; None for nowhere
        :param lengths: (B,) int64, where the inputs are: how many of the first steps count, 1 to T, as in a burn-in;
            None for all
        :return: (T, B, outputs), of any value where steps do not count, and the states after the last that does
        """


def begun_anew(states: States, initial: States, episode_starts: torch.Tensor) -> States:
    """States with the initial ones where episodes start.

    :param states: (layers, N, units) each
    :param initial: the same
    :param episode_starts: (N,) bool
    """
    starts = episode_starts.reshape(1, -1, 1)
    return tuple(torch.where(starts, first, part) for first, part in zip(initial, states, strict=True))


def stacked(states: States) -> torch.Tensor:
    """States (layers, N, units) each as one tensor (N, parts, layers, units), as replay stores them."""
    return torch.stack(states).permute(2, 0, 1, 3)


def unstacked(states: torch.Tensor) -> States:
    """Inverse of `stacked`."""
    return tuple(states.permute(1, 2, 0, 3).contiguous().unbind(0))
