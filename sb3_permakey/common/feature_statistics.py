"""How well features tell states apart: what a network that does not learn should be asked first."""

import torch

SMALLEST_SHARE = 1e-12
"""Singular values of a smaller share of their sum count as zero."""


def effective_rank(features: torch.Tensor) -> float:
    """Number of directions in which features spread, from 1 to the smaller of N and F.

    exp of the entropy of the singular values' shares (Roy & Vetterli 2007, equation 3).

    :param features: (N, F), of N states
    """
    values = torch.linalg.svdvals(features.float())
    shares = (values / values.sum().clamp_min(SMALLEST_SHARE)).clamp_min(SMALLEST_SHARE)
    return float(torch.exp(-(shares * shares.log()).sum()))


def dead_units(features: torch.Tensor) -> float:
    """Share of the features that are the same, as a ReLU unit's zero, for all states.

    :param features: (N, F), of N states
    """
    return float((features == features[:1]).all(dim=0).float().mean())


def relative_spread(features: torch.Tensor) -> float:
    """Standard deviation between states, as a multiple of the mean size; means of all features.

    :param features: (N, F), of N states
    """
    return float(features.std(dim=0).mean() / features.abs().mean())
