"""Linear recurrences of a whole sequence at once."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable


def linear_recurrence(decays: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """h_t = a_t h_{t-1} + b_t for all t, from h_{-1} = 0, by a parallel scan of depth 2 log2 T.

    Two steps are one, (a_2 a_1, a_2 b_1 + b_2), so that every other h is a recurrence of half the length, and those
    between follow from them (Blelloch 1990, https://www.cs.cmu.edu/~guyb/papers/Ble93.pdf). Decays are multiplied and
    never divided by: with those from 0 to 1 nothing overflows, and none is too small.

    The gradient with respect to b is such a recurrence backwards in time, g_t = dh_t + a_{t+1} g_{t+1}, and that with
    respect to a is g_t h_{t-1} (Martin & Cundy 2018, https://arxiv.org/abs/1709.04057).

    :param decays: (T, ...), a
    :param inputs: (T, ...), b
    :return: (T, ...), h
    """
    return _LinearRecurrence.apply(decays, inputs)


class _LinearRecurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, decays: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        values = torch.empty_like(inputs)
        _scan(decays, inputs, values)
        ctx.save_for_backward(decays, values)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        decays, values = ctx.saved_tensors
        backwards = torch.empty_like(values)
        # Backwards in time; the decay of the first of these, T, stands before nothing and counts for nothing.
        _scan(decays.roll(-1, 0).flip(0), gradients[0].flip(0), backwards)
        of_inputs = backwards.flip(0)
        of_decays = torch.zeros_like(of_inputs)
        torch.mul(of_inputs[1:], values[:-1], out=of_decays[1:])
        return of_decays, of_inputs


def _scan(decays: torch.Tensor, inputs: torch.Tensor, values: torch.Tensor) -> None:
    """Write the recurrence's values."""
    steps = len(inputs)
    values[0] = inputs[0]
    if steps == 1:
        return
    pairs = slice(0, steps - 1, 2), slice(1, steps, 2)
    firsts, seconds = (decays[part] for part in pairs)
    both = torch.addcmul(inputs[pairs[1]], seconds, inputs[pairs[0]])
    _scan(firsts * seconds, both, values[1::2])
    between = slice(2, steps, 2)
    torch.addcmul(inputs[between], decays[between], values[1 : steps - 1 : 2], out=values[between])
