"""The messages of a fully connected graph, a few graphs at a time, so that they stay in the processor's cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

VALUES_AT_ONCE = 2**19
"""Numbers in the messages of the graphs that a CPU works on at the same time; a GPU takes all graphs at once."""
MEANS_AT_ONCE = 2**17
"""The same where messages go through no product of matrices, so that smaller groups cost little."""


def incoming_messages(receivers: Tensor, senders: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Sum of relu(W relu(r_i + s_j) + b) over the nodes j other than i, at each node i.

    :param receivers: (B, K, units), r
    :param senders: (B, K, units), s
    :param weight: (units, units), W
    :param bias: (units,), b
    :return: (B, K, units)
    """
    inputs = (receivers, senders, weight, bias)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
        return IncomingMessages.apply(*inputs)
    groups = (_messages(group[0], group[1], weight, bias) for group in _groups(VALUES_AT_ONCE, receivers, senders))
    return torch.cat([messages.sum(dim=2) for _, messages in groups])


class IncomingMessages(torch.autograd.Function):
    """`incoming_messages` with its gradients, which go through each group of graphs once, as the messages do."""

    @staticmethod
    def forward(ctx: Any, receivers: Tensor, senders: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The sums, and what their gradients need."""
        groups = [_messages(group[0], group[1], weight, bias) for group in _groups(VALUES_AT_ONCE, receivers, senders)]
        ctx.save_for_backward(weight, *(tensor for group in groups for tensor in group))
        return torch.cat([messages.sum(dim=2) for _, messages in groups])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        """Gradients of all four inputs."""
        weight, *saved = ctx.saved_tensors
        of_weight, of_bias = torch.zeros_like(weight), torch.zeros_like(weight[0])
        of_receivers, of_senders = [], []
        threshold_backward = torch.ops.aten.threshold_backward
        start = 0
        for pairs, messages in zip(saved[::2], saved[1::2], strict=True):
            stop = start + len(pairs)
            # A message that is zero, as a node's to itself, has no gradient.
            of_messages = threshold_backward(gradient[start:stop].unsqueeze(2).expand_as(messages), messages, 0)
            rows = of_messages.flatten(0, 2)
            of_weight.addmm_(rows.t(), pairs.flatten(0, 2))
            of_bias += rows.sum(dim=0)
            of_pairs = threshold_backward((rows @ weight).view_as(pairs), pairs, 0)
            of_receivers.append(of_pairs.sum(dim=2))
            of_senders.append(of_pairs.sum(dim=1))
            start = stop
        return torch.cat(of_receivers), torch.cat(of_senders), of_weight, of_bias


def mean_messages(receivers: Tensor, senders: Tensor) -> Tensor:
    """Mean of relu(r_i + s_j) over all nodes j, itself among them, at each node i.

    :param receivers: (B, K, units), r
    :param senders: (B, K, units), s
    :return: (B, K, units)
    """
    return MeanMessages.apply(receivers, senders)


class MeanMessages(torch.autograd.Function):
    """`mean_messages` with its gradients, which go through each group of graphs once, as the messages do."""

    @staticmethod
    def forward(ctx: Any, receivers: Tensor, senders: Tensor) -> Tensor:
        """The means."""
        means, groups = torch.empty_like(receivers), []
        for group in _groups(MEANS_AT_ONCE, receivers, senders, means):
            pairs = _relu_of_pairs(*group[:2])
            torch.sum(pairs, dim=2, out=group[2])
            groups.append(pairs)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(*groups)
        return means.div_(receivers.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of both inputs."""
        shares = gradient / gradient.shape[1]
        of_receivers, of_senders = torch.empty_like(shares), torch.empty_like(shares)
        for pairs, group in zip(
            ctx.saved_tensors, _groups(MEANS_AT_ONCE, shares, of_receivers, of_senders), strict=True
        ):
            of_pairs = torch.ops.aten.threshold_backward(group[0].unsqueeze(2).expand_as(pairs), pairs, 0)
            torch.sum(of_pairs, dim=2, out=group[1])
            torch.sum(of_pairs, dim=1, out=group[2])
        return of_receivers, of_senders


def _relu_of_pairs(receivers: Tensor, senders: Tensor) -> Tensor:
    """relu(r_i + s_j), (B, K, K, units)."""
    receivers, senders = receivers.unsqueeze(2), senders.unsqueeze(1)
    if receivers.device.type == "cpu":
        # In one pass.
        return torch.ops.aten._add_relu(receivers, senders)
    return (receivers + senders).relu_()


def _messages(receivers: Tensor, senders: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """relu(r_i + s_j), and the messages, both (B, K, K, units); no node sends to itself."""
    pairs = _relu_of_pairs(receivers, senders)
    messages = torch.addmm(bias, pairs.flatten(0, 2), weight.t()).relu_().view_as(pairs)
    messages.diagonal(dim1=1, dim2=2).zero_()
    return pairs, messages


def _groups(at_once: int, *nodes: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Values of nodes, (B, K, units) each, of as many graphs as have so many numbers in their messages."""
    graphs, count, units = nodes[0].shape
    size = max(at_once // (count**2 * units), 1) if nodes[0].device.type == "cpu" else graphs
    return zip(*(values.split(size) for values in nodes), strict=True)
