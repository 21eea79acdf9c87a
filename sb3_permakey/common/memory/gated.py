"""LSTM and GRU, of torch's library."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from sb3_permakey.common.memory.cell import MemoryCell, States, begun_anew
from sb3_permakey.encoders.initialisation import initialise_recurrent

PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
SHUT = 1e4
"""Shuts or opens a gate, whatever else goes to it."""


class GatedMemory(MemoryCell):
    """What LSTM and GRU have in common."""

    stops: ClassVar[tuple[float, ...]]
    """What makes a step change nothing, if it is added to what goes to the gates, in torch's order."""
    num_layers: int
    hidden_size: int

    def window(
        self,
        inputs: torch.Tensor,
        states: States | None = None,
        episode_starts: torch.Tensor | None = None,
        lengths: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, States]:
        """One call of the library for all steps; see MemoryCell."""
        steps, count = inputs.shape[:2]
        if episode_starts is not None:
            initial = self.initial_states(count, inputs.device)
            states = initial if states is None else states
            if steps > 1:
                return self._pieces(inputs, states, initial, episode_starts, lengths)
            states = begun_anew(states, initial, episode_starts[0])
        if lengths is None:
            return self.recur(inputs, states)
        if lengths.device.type != "cpu":
            return self.padded(inputs, self.initial_states(count, inputs.device) if states is None else states, lengths)
        packed, states = self.recur(pack_padded_sequence(inputs, lengths, enforce_sorted=False), states)
        return pad_packed_sequence(packed, total_length=steps)[0], states

    def padded(self, inputs: torch.Tensor, states: States, lengths: torch.Tensor) -> tuple[torch.Tensor, States]:
        """Steps of which the first ones count, in shapes that do not depend on how many, which a GPU's host waits for.

        An input more is 1 where a step counts no more, with weights so large that the gates it goes to are shut: what
        is remembered stays as it is, to the last bit.

        :param inputs: (T, B, inputs)
        :param states: (layers, B, units) each
        :param lengths: (B,) int64, where the inputs are
        :return: as of `window`
        """
        over = torch.arange(len(inputs), device=inputs.device).unsqueeze(1) >= lengths
        marks, last = over.unsqueeze(-1).to(inputs.dtype), (lengths - 1).reshape(1, -1, 1)
        outputs, afters = inputs, []
        for layer in range(self.num_layers):
            weight, *others = (getattr(self, f"{name}_l{layer}") for name in PARAMETERS)
            # Made on the device.
            stops = torch.cat([weight.new_full((self.hidden_size, 1), stop) for stop in self.stops])
            weights = [torch.cat([weight, stops], dim=1), *others]
            before = tuple(part[layer : layer + 1] for part in states)
            outputs, after = self.recur_with(torch.cat([outputs, marks], dim=-1), before, weights)
            # The output is the first part of the state.
            output = outputs.gather(0, last.expand(-1, -1, self.hidden_size))
            afters.append((output, *after[1:]))
        return outputs, tuple(torch.cat(parts) for parts in zip(*afters, strict=True))

    def _pieces(
        self,
        inputs: torch.Tensor,
        states: States,
        initial: States,
        episode_starts: torch.Tensor,
        lengths: torch.Tensor | None,
    ) -> tuple[torch.Tensor, States]:
        """Windows in which episodes start, as one packed sequence of pieces that lie within an episode each."""
        steps, count = inputs.shape[:2]
        ends = torch.full((count,), steps) if lengths is None else lengths.cpu()
        starts = episode_starts.cpu()
        windows, firsts, lasts = pieces(starts, ends)
        sizes = lasts - firsts
        times = firsts + torch.arange(int(sizes.max())).unsqueeze(1)
        # Numbers of the steps in inputs.flatten(0, 1), (longest piece, pieces), padded by any.
        rows = (times.clamp(max=steps - 1) * count + windows).to(inputs.device)
        counts = (times < lasts).to(inputs.device)
        of_piece = windows.to(inputs.device)
        before = begun_anew(
            tuple(part[:, of_piece] for part in states),
            tuple(part[:, of_piece] for part in initial),
            starts[firsts, windows].to(inputs.device),
        )
        packed, after = self.recur(
            pack_padded_sequence(inputs.flatten(0, 1)[rows], sizes, enforce_sorted=False), before
        )
        found = pad_packed_sequence(packed)[0]
        outputs = inputs.new_zeros(steps * count, self.outputs).index_put((rows[counts],), found[counts])
        final = torch.nonzero(lasts == ends[windows]).squeeze(1).to(inputs.device)
        return outputs.unflatten(0, (steps, count)), tuple(part[:, final] for part in after)

    @abstractmethod
    def recur(self, inputs: Any, states: States | None) -> tuple[Any, States]:
        """The library's call, with states as a tuple.

        :param inputs: (T, B, inputs), or a PackedSequence of as many
        """

    @abstractmethod
    def recur_with(
        self, inputs: torch.Tensor, states: States, weights: list[torch.Tensor]
    ) -> tuple[torch.Tensor, States]:
        """The library's call for one layer, with other weights than its own.

        :param inputs: (T, B, inputs of the layer)
        :param states: (1, B, units) each
        :param weights: in the order of `PARAMETERS`
        """


def pieces(starts: torch.Tensor, ends: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Parts of windows that lie within an episode each, window by window and in the order of time.

    :param starts: (T, B) bool, where episodes start
    :param ends: (B,) int64, how many steps of each window count, at least 1
    :return: of each piece its window, its first step and the step after its last
    """
    begins = starts.clone()
    begins[0] = True
    begins &= torch.arange(len(starts)).unsqueeze(1) < ends
    windows, firsts = begins.t().nonzero(as_tuple=True)
    is_last = torch.cat([windows[1:] != windows[:-1], torch.tensor([True])])
    return windows, firsts, torch.where(is_last, ends[windows], firsts.roll(-1))


class LSTMMemory(GatedMemory, nn.LSTM):
    """An LSTM, whose states are hidden and cell state (Hochreiter & Schmidhuber 1997)."""

    # No input, all of the cell.
    stops: ClassVar[tuple[float, ...]] = (-SHUT, SHUT, 0.0, 0.0)

    def __init__(self, inputs: int, units: int, layers: int) -> None:
        nn.LSTM.__init__(self, inputs, units, layers)
        initialise_recurrent(self)
        self.outputs, self.state_shape = units, (2, layers, units)

    def recur(self, inputs: torch.Tensor | PackedSequence, states: States | None) -> tuple[Any, States]:
        """The library's call."""
        return self(inputs, states)

    def recur_with(
        self, inputs: torch.Tensor, states: States, weights: list[torch.Tensor]
    ) -> tuple[torch.Tensor, States]:
        """The library's call for one layer with weights given."""
        outputs, *after = torch.lstm(inputs, states, weights, True, 1, 0.0, False, False, False)
        return outputs, tuple(after)


class GRUMemory(GatedMemory, nn.GRU):
    """A GRU, whose state is the hidden state (Cho et al. 2014)."""

    # All of the state before.
    stops: ClassVar[tuple[float, ...]] = (0.0, SHUT, 0.0)

    def __init__(self, inputs: int, units: int, layers: int) -> None:
        nn.GRU.__init__(self, inputs, units, layers)
        initialise_recurrent(self)
        self.outputs, self.state_shape = units, (1, layers, units)

    def recur(self, inputs: torch.Tensor | PackedSequence, states: States | None) -> tuple[Any, States]:
        """The library's call, with the hidden state in a tuple."""
        output, hidden = self(inputs, None if states is None else states[0])
        return output, (hidden,)

    def recur_with(
        self, inputs: torch.Tensor, states: States, weights: list[torch.Tensor]
    ) -> tuple[torch.Tensor, States]:
        """The library's call for one layer with weights given."""
        outputs, hidden = torch.gru(inputs, states[0], weights, True, 1, 0.0, False, False, False)
        return outputs, (hidden,)
