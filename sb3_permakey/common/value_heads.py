"""What a network's outputs for an action mean: a value, quantiles or a distribution over returns.

A kind of values says how outputs become expected values, what they should have been, and what it costs that they were
not. The agents ask nothing else, so that a kind of your own is one class: ``value_head=MyValues``, or a
`functools.partial` of it, wherever "categorical" may stand.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from sb3_permakey.common.targets import quantile_huber_loss


class Values(nn.Module):
    """One kind of values.

    :param outputs: how many outputs the network has for each action
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    @abstractmethod
    def expected(self, outputs: torch.Tensor) -> torch.Tensor:
        """Expected values (...) of outputs (..., outputs)."""

    def places(self, outputs: torch.Tensor) -> torch.Tensor:
        """Returns (..., M) that outputs (..., outputs) stand for; the targets of these are as any return's."""
        return outputs

    def targets(self, places: torch.Tensor, outputs: Callable[[], torch.Tensor]) -> torch.Tensor:
        """What outputs should have been.

        :param places: (..., M), targets R + d x of the `places` x of the state that is bootstrapped from
        :param outputs: gives (..., outputs), outputs for the greedy action in that state, to a kind that asks for them
        :return: what `losses` compares predictions with
        """
        return places

    @abstractmethod
    def losses(self, predicted: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """How wrong predictions are.

        :param predicted: (..., outputs), outputs for the action taken
        :param targets: of `targets`
        :return: losses (...), with gradient, and errors (...) by which experience is drawn again, without
        """


class ScalarValues(Values):
    """One output: the value itself, learned by the Huber loss."""

    def __init__(self) -> None:
        super().__init__(1)

    def expected(self, outputs: torch.Tensor) -> torch.Tensor:
        """The outputs."""
        return outputs.squeeze(-1)

    def losses(self, predicted: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Huber losses, and TD errors."""
        losses = F.smooth_l1_loss(predicted, targets, reduction="none").squeeze(-1)
        return losses, (targets - predicted.detach()).squeeze(-1)


class QuantileValues(Values):
    """Quantiles of the return at the midpoints of N equal parts (Dabney et al. 2018)."""

    def expected(self, outputs: torch.Tensor) -> torch.Tensor:
        """The quantiles' mean."""
        return outputs.mean(dim=-1)

    def losses(self, predicted: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Quantile Huber losses, and the difference of the means."""
        return quantile_huber_loss(predicted, targets), targets.mean(dim=-1) - predicted.detach().mean(dim=-1)


class CategoricalValues(Values):
    """A distribution over returns at N equally spaced places, the atoms, as logits (Bellemare et al. 2017).

    :param atoms: N, at least 2
    :param v_min: the lowest return that can be told from lower ones
    :param v_max: the highest
    :raises ValueError: if these span no range
    """

    support: torch.Tensor

    def __init__(self, atoms: int = 51, v_min: float = -10.0, v_max: float = 10.0) -> None:
        super().__init__(atoms)
        if atoms < 2 or not v_min < v_max:
            raise ValueError(f"needed are 2 atoms or more from v_min to a larger v_max, not {atoms}, {v_min}, {v_max}")
        self.v_min, self.v_max = v_min, v_max
        self.register_buffer("support", torch.linspace(v_min, v_max, atoms), persistent=False)

    def expected(self, outputs: torch.Tensor) -> torch.Tensor:
        """sum_i z_i p_i."""
        return outputs.softmax(dim=-1) @ self.support

    def places(self, outputs: torch.Tensor) -> torch.Tensor:
        """The atoms."""
        return self.support.expand_as(outputs)

    def targets(self, places: torch.Tensor, outputs: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Probabilities (..., atoms) of R + d Z, projected onto the atoms."""
        return project(places, outputs().softmax(dim=-1), self.v_min, self.v_max)

    def losses(self, predicted: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropies, which are the errors too."""
        losses = -(targets * predicted.log_softmax(dim=-1)).sum(dim=-1)
        return losses, losses.detach()


def project(places: torch.Tensor, probabilities: torch.Tensor, v_min: float, v_max: float) -> torch.Tensor:
    """A distribution over some places as one over N equally spaced atoms (Bellemare et al. 2017, equation 7).

    (Phi p)_i = sum_j [1 - |clip(x_j) - z_i| / dz]_0^1 p_j: each place's probability goes to its two neighbours, the
    nearer of which gets more; places beyond the ends count for the ends.

    :param places: (..., N), x
    :param probabilities: (..., N), p
    :param v_min: the first atom
    :param v_max: the last atom
    :return: (..., N)
    """
    atoms = probabilities.shape[-1]
    # In units of the atoms' distance, from the first one on.
    scaled = (places.clamp(v_min, v_max) - v_min) * ((atoms - 1) / (v_max - v_min))
    below = scaled.floor().clamp(0, atoms - 2)
    upwards = probabilities * (scaled - below)
    index = below.long()
    projected = torch.zeros_like(probabilities)
    projected.scatter_add_(-1, index, probabilities - upwards)
    return projected.scatter_add_(-1, index + 1, upwards)


ValueHeadName = Literal["scalar", "quantile", "categorical"]
ValueHeadKind = ValueHeadName | Callable[[], Values]
"""A name, or what makes values of your own, such as their class."""


def make_values(value_head: ValueHeadKind, n_quantiles: int, n_atoms: int, v_min: float, v_max: float) -> Values:
    """Values of a kind; those of your own take none of the other arguments.

    :raises ValueError: for an unknown name, or what makes no values
    """
    if value_head == "scalar":
        return ScalarValues()
    if value_head == "quantile":
        return QuantileValues(n_quantiles)
    if value_head == "categorical":
        return CategoricalValues(n_atoms, v_min, v_max)
    made = value_head() if callable(value_head) else None
    if isinstance(made, Values):
        return made
    raise ValueError(
        f'value_head must be "scalar", "quantile" or "categorical", or make Values of your own, not {value_head!r}'
    )
