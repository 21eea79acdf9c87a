"""Mean and maximum over the nodes of a graph, in whose gradients nothing is counted in whole numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def mean_and_max(nodes: Tensor) -> Tensor:
    """Mean and maximum over nodes, one beside the other.

    :param nodes: (B, K, units)
    :return: (B, 2 units)
    """
    return MeanAndMax.apply(nodes)


class MeanAndMax(torch.autograd.Function):
    """`mean_and_max` with its gradient, of which nodes that are the largest alike get equal parts, as torch has it."""

    @staticmethod
    def forward(ctx: Any, nodes: Tensor) -> Tensor:
        """Means and maxima."""
        largest = nodes.amax(dim=1)
        ctx.save_for_backward(nodes, largest)
        return torch.cat([nodes.mean(dim=1), largest], dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """The gradient of the nodes."""
        nodes, largest = ctx.saved_tensors
        of_means, of_largest = gradient.chunk(2, dim=-1)
        # As floats at once: torch takes long to sum what is true.
        of_nodes = torch.empty_like(nodes)
        torch.eq(nodes, largest.unsqueeze(1), out=of_nodes)
        of_nodes *= (of_largest / of_nodes.sum(dim=1)).unsqueeze(1)
        of_nodes += (of_means / nodes.shape[1]).unsqueeze(1)
        return of_nodes
