"""Resets: a network that has learned from few data for long loses its ability to learn more."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def shrink_and_perturb(network: nn.Module, fresh: nn.Module, kept: nn.Module, shrink: float) -> None:
    """Give a network fresh weights, but keep a share of the old ones in one of its parts.

    D'Oro et al. 2023 (https://openreview.net/forum?id=OpC-9aBBVJe) and Schwarzer et al. 2023, section 4: the encoder's
    weights become `shrink` times the old ones and 1 - `shrink` times fresh ones, the head's fresh ones.

    :param network: is changed in place
    :param fresh: another of the same shape, with first weights
    :param kept: the part of `network` of which a share stays
    :param shrink: that share, from 0 to 1
    """
    partly = {id(tensor) for tensor in (*kept.parameters(), *kept.buffers())}
    tensors = zip(_tensors(network), _tensors(fresh), strict=True)
    for old, new in tensors:
        if id(old) in partly and old.is_floating_point():
            old.lerp_(new, 1 - shrink)
        else:
            old.copy_(new)


def _tensors(network: nn.Module) -> list[torch.Tensor]:
    return [*network.parameters(), *network.buffers()]
