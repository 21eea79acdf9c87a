"""minGRU: a linear recurrence."""

from __future__ import annotations

import torch
from torch import nn

from sb3_permakey.common.memory.cell import MemoryCell, States
from sb3_permakey.common.memory.scan import linear_recurrence
from sb3_permakey.encoders.initialisation import initialise_layers

KEEPING_BIAS = 1.0
"""Of the gates at first: they keep most of what there is, as an LSTM's forget gates do."""


class MinGRU(MemoryCell):
    """h_t = (1 - z_t) h_{t-1} + z_t (W x_t + c) with z_t = sigmoid(V x_t + d), trained by a parallel scan.

    A GRU whose gates see the inputs alone (Feng et al. 2024, "Were RNNs all we needed?",
    https://arxiv.org/abs/2410.01201, section 3.1), so that h is linear in what came before. Its gates do not know what
    it holds; stacked layers see what those below hold.

    The paper works with the logarithms of a positive h; since 1 - z lies between 0 and 1, the scan of h itself is as
    safe, and h has both signs.

    :param inputs: width of what it reads
    :param units: of each layer
    :param layers: how many are stacked
    """

    def __init__(self, inputs: int, units: int, layers: int) -> None:
        super().__init__()
        self.outputs, self.state_shape = units, (1, layers, units)
        widths = [inputs, *[units] * (layers - 1)]
        self.keep = nn.ModuleList(nn.Linear(width, units) for width in widths)
        self.candidate = nn.ModuleList(nn.Linear(width, units) for width in widths)
        initialise_layers(self, gain=1.0, centred=False)
        for gate in self.keep:
            assert isinstance(gate, nn.Linear)
            nn.init.constant_(gate.bias, KEEPING_BIAS)

    def window(
        self,
        inputs: torch.Tensor,
        states: States | None = None,
        episode_starts: torch.Tensor | None = None,
        lengths: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, States]:
        """One scan a layer; see MemoryCell."""
        outputs, held = inputs, []
        for layer, (keep, candidate) in enumerate(zip(self.keep, self.candidate, strict=True)):
            decays, values = keep(outputs).sigmoid(), candidate(outputs)
            values = (1 - decays) * values
            if episode_starts is not None:
                decays = decays * ~episode_starts.unsqueeze(-1)
            if states is not None:
                values = torch.cat([torch.addcmul(values[:1], decays[:1], states[0][layer]), values[1:]])
            outputs = linear_recurrence(decays, values)
            held.append(outputs[-1] if lengths is None else _at(outputs, lengths - 1))
        return outputs, (torch.stack(held),)


def _at(values: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """Values (B, units) of (T, B, units) at times (B,)."""
    return values[times, torch.arange(values.shape[1], device=values.device)]
