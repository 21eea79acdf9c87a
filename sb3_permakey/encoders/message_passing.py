"""The messages of a fully connected graph, a few graphs at a time, so that they stay in the processor's cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

VALUES_AT_ONCE = 2**19
"""Numbers in the messages of the graphs that a CPU works on at the same time; a GPU takes all graphs at once."""


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
    groups = (_messages(*group, weight, bias) for group in _groups(receivers, senders))
    return torch.cat([messages.sum(dim=2) for _, messages in groups])


class IncomingMessages(torch.autograd.Function):
    """`incoming_messages` with its gradients, which go through each group of graphs once, as the messages do."""

    @staticmethod
    def forward(ctx: Any, receivers: Tensor, senders: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The sums, and what their gradients need."""
        groups = [_messages(*group, weight, bias) for group in _groups(receivers, senders)]
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
    """`mean_messages` with its gradients; pairs are made again where these need them, not kept."""

    @staticmethod
    def forward(ctx: Any, receivers: Tensor, senders: Tensor) -> Tensor:
        """The means."""
        ctx.save_for_backward(receivers, senders)
        groups = _groups(receivers, senders)
        return torch.cat([(group[0].unsqueeze(2) + group[1].unsqueeze(1)).relu_().mean(dim=2) for group in groups])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of both inputs."""
        receivers, senders = ctx.saved_tensors
        shares = gradient / gradient.shape[1]
        of_receivers, of_senders, start = [], [], 0
        for some_receivers, some_senders in _groups(receivers, senders):
            stop = start + len(some_receivers)
            pairs = some_receivers.unsqueeze(2) + some_senders.unsqueeze(1)
            of_pairs = torch.ops.aten.threshold_backward(shares[start:stop].unsqueeze(2).expand_as(pairs), pairs, 0)
            of_receivers.append(of_pairs.sum(dim=2))
            of_senders.append(of_pairs.sum(dim=1))
            start = stop
        return torch.cat(of_receivers), torch.cat(of_senders)


def _messages(receivers: Tensor, senders: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """relu(r_i + s_j), and the messages, both (B, K, K, units); no node sends to itself."""
    pairs = (receivers.unsqueeze(2) + senders.unsqueeze(1)).relu_()
    messages = torch.addmm(bias, pairs.flatten(0, 2), weight.t()).relu_().view_as(pairs)
    messages.diagonal(dim1=1, dim2=2).zero_()
    return pairs, messages


def _groups(receivers: Tensor, senders: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Receivers and senders of as many graphs as are worked on at the same time."""
    graphs, count, units = receivers.shape
    size = max(VALUES_AT_ONCE // (count**2 * units), 1) if receivers.device.type == "cpu" else graphs
    return zip(receivers.split(size), senders.split(size), strict=True)
