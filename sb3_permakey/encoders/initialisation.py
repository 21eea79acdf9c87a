"""First weights that pass on what tells states apart.

torch's default weights shrink a signal by about three at each layer of ReLU units, while its biases stay: after
eleven layers all states look the same. Orthogonal weights with a gain of the root of 2 keep the
signal's size through ReLU (Saxe et al. 2014, https://arxiv.org/abs/1312.6120), and biases begin at zero. What ReLU
gives is never negative, so that all its outputs have a mean in common, which grows from layer to layer beside what
differs between states; rows of weights whose mean is zero do not see it (Huang et al. 2017,
https://arxiv.org/abs/1710.02338).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import nn

RELU_GAIN = math.sqrt(2)
HEAD_GAIN = 0.1
"""Values begin small beside the rewards, and nearly equal for all actions."""
_ORTHOGONAL: ContextVar[bool] = ContextVar("orthogonal", default=True)


@contextmanager
def first_weights(orthogonal: bool) -> Iterator[None]:
    """Networks that are made within get the first weights of this module, or else keep torch's own.

    :param orthogonal: whether they get them
    """
    before = _ORTHOGONAL.set(orthogonal)
    try:
        yield
    finally:
        _ORTHOGONAL.reset(before)


@torch.no_grad()
def initialise_layers(module: nn.Module, gain: float = RELU_GAIN, *, centred: bool = True) -> None:
    """Give all linear and convolutional layers of a module orthogonal weights, and biases of zero.

    Where a layer has more outputs than inputs, each output is as large as with a square one.

    :param module: a layer, or one with layers; those of other kinds stay as they are
    :param gain: of the weights; the root of 2 for layers that ReLU follows
    :param centred: whether the weights of an output have mean zero, for layers whose inputs are never negative
    """
    if not _ORTHOGONAL.get():
        return
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            outputs, inputs = layer.weight.flatten(1).shape
            nn.init.orthogonal_(layer.weight, gain * math.sqrt(max(outputs / inputs, 1.0)))
            if centred:
                layer.weight -= layer.weight.mean(dim=tuple(range(1, layer.weight.dim())), keepdim=True)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def initialise_head(head: nn.Module) -> None:
    """The same for a head: hidden layers with the gain of ReLU, the last layer with `HEAD_GAIN`.

    :param head: an MLP, whose last linear layer gives the outputs
    """
    if not _ORTHOGONAL.get():
        return
    initialise_layers(head, centred=False)
    last = [layer for layer in head.modules() if isinstance(layer, nn.Linear)][-1]
    nn.init.orthogonal_(last.weight, HEAD_GAIN)


@torch.no_grad()
def initialise_recurrent(rnn: nn.LSTM | nn.GRU) -> None:
    """Give each gate of a recurrent layer orthogonal weights, and biases of zero, of an LSTM's forget gates one.

    A forget gate that begins open lets errors reach far back (Jozefowicz et al. 2015,
    https://proceedings.mlr.press/v37/jozefowicz15.html).
    """
    if not _ORTHOGONAL.get():
        return
    for name, parameter in rnn.named_parameters():
        if name.startswith("weight"):
            for gate in parameter.split(rnn.hidden_size):
                nn.init.orthogonal_(gate)
        else:
            nn.init.zeros_(parameter)
            # Gates come in the order input, forget, cell, output; of the two biases one is enough.
            if isinstance(rnn, nn.LSTM) and name.startswith("bias_ih"):
                parameter[rnn.hidden_size : 2 * rnn.hidden_size] = 1.0
