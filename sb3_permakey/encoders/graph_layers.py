"""Layers of torch-geometric between keypoints.

`KeypointGNN` imports this module where it needs one: the library takes as long to import as all the rest.
"""

from __future__ import annotations

import copy
import difflib
import inspect
from typing import Any

import torch
import torch_geometric.nn
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import MessagePassing

from sb3_permakey.encoders.graphs import EDGE_SIZE, KeypointGraph
from sb3_permakey.encoders.parts import mlp

EDGE_WIDTHS = ("edge_dim", "in_edge_channels", "dim")
"""What layers call the width of the edges' attributes."""
FURTHER = ("edge_attr", "batch")
"""What layers take beside nodes and edge_index."""
AGGREGATORS = ("mean", "min", "max", "std")
SCALERS = ("identity", "amplification", "attenuation")
"""PNA's, of Corso et al. 2020, https://arxiv.org/abs/2004.05718."""


class InteractionConv(MessagePassing):
    """The paper's Interaction Network on any graph: `InteractionNetwork` with gather and scatter.

    :param units: width of nodes and edges
    """

    def __init__(self, units: int) -> None:
        super().__init__(aggr="sum")
        self.update_edges = mlp(3 * units, units)
        self.update_nodes = mlp(2 * units, units)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """Updated nodes.

        :param x: (N, units), nodes of all graphs
        :param edge_index: (2, E), senders and receivers
        :param edge_attr: (E, units), the edges' values, or (1, units) for all
        :return: (N, units)
        """
        edges = edge_attr.expand(edge_index.shape[1], -1)
        incoming = self.propagate(edge_index, x=x, edge_attr=edges, size=(len(x), len(x)))
        return self.update_nodes(torch.cat([x, incoming], dim=-1))

    def message(self, x_i: Tensor, x_j: Tensor, edge_attr: Tensor) -> Tensor:
        """f_e of receiver, sender and edge, (E, units)."""
        return self.update_edges(torch.cat([x_i, x_j, edge_attr], dim=-1))


class ResidualLayer(nn.Module):
    """Nodes beside what a layer of torch-geometric makes of them: v + relu(layer(v)).

    Layers whose mean over neighbours is the same for all nodes of a full graph would make them all alike without v.

    :param layer: maps (N, units) to (N, units) over edge_index
    :param count: nodes of a graph
    :param reads: what else it takes, of "edge_attr" and "batch", which graph each node belongs to
    """

    def __init__(self, layer: nn.Module, count: int, reads: tuple[str, ...]) -> None:
        super().__init__()
        self.layer, self.count, self.reads = layer, count, reads

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """Updated nodes (N, units)."""
        return x + F.relu(self.mapped(x, edge_index, edge_attr))

    def mapped(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """What the layer itself makes of the nodes."""
        further = {"edge_attr": edge_attr, "batch": torch.arange(len(x), device=x.device) // self.count}
        return self.layer(x, edge_index, **{name: further[name] for name in self.reads})


def make_layer(
    conv: str | type[nn.Module], conv_kwargs: dict[str, Any], units: int, graph: KeypointGraph, count: int
) -> ResidualLayer:
    """A layer of torch-geometric, tried on a graph.

    Where its constructor takes them and nothing else is said, it gets the width of nodes and edges, of several heads
    each its part of the width, GIN's MLP, and PNA's aggregators, scalers and degrees.

    :param conv: name of a layer in torch_geometric.nn, or a class that is made and called like one
    :param conv_kwargs: the constructor's further arguments; modules among them are copied
    :param units: width of the nodes
    :param graph: which keypoints hear of which
    :param count: number of keypoints, K
    :raises ValueError: when there is no such layer, it has no such argument, or it does not map nodes to nodes
    """
    kind = layer_class(conv)
    taken = _parameters(kind.__init__)
    known = {name for one in kind.__mro__ for name in _parameters(one.__init__)}  # type: ignore[misc]
    for name in conv_kwargs:
        if name not in known:
            raise ValueError(f"{kind.__name__} has no argument {name!r}; it has {', '.join(taken)}")
    forward = _parameters(kind.forward)
    arguments = {name: value for name, value in _usual(units, graph, count).items() if name in taken}
    edge_width = next((name for name in EDGE_WIDTHS if name in taken and "edge_attr" in forward), None)
    if edge_width:
        arguments[edge_width] = EDGE_SIZE
    # Online and target network, and each of several layers, have modules of their own.
    arguments |= copy.deepcopy(conv_kwargs)
    heads = arguments.get("heads", 1)
    if heads > 1 and arguments.get("concat", taken.get("concat")) and "out_channels" not in conv_kwargs:
        if units % heads:
            raise ValueError(f"{kind.__name__}'s heads must divide the {units} units, not {heads}")
        arguments["out_channels"] = units // heads
    try:
        layer = kind(**arguments)
    except Exception as error:
        raise ValueError(f"{kind.__name__} cannot be made with conv_kwargs={conv_kwargs}: {error}") from error
    without_edges = edge_width is not None and arguments[edge_width] is None
    reads = tuple(name for name in FURTHER if name in forward and not (name == "edge_attr" and without_edges))
    made = ResidualLayer(layer, count, reads)
    _try(made, kind.__name__, units, graph)
    return made


def layer_class(conv: str | type[nn.Module]) -> type[nn.Module]:
    """The class of a layer.

    :raises ValueError: when there is none of this name, or it is no class of a layer
    """
    found = getattr(torch_geometric.nn, conv, None) if isinstance(conv, str) else conv
    if isinstance(found, type) and issubclass(found, nn.Module):
        return found
    names = [name for name in dir(torch_geometric.nn) if name.endswith("Conv")]
    near = difflib.get_close_matches(str(conv), names, 3)
    raise ValueError(
        f"conv must be 'interaction', the name of a layer in torch_geometric.nn or a class, not {conv!r}"
        + (f"; did you mean {' or '.join(near)}?" if near else "")
    )


def _parameters(function: Any) -> dict[str, Any]:
    """Names of a function's arguments, and their defaults."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = inspect.signature(function).parameters.items()
    return {name: one.default for name, one in found if one.kind in kinds and name != "self"}


def _usual(units: int, graph: KeypointGraph, count: int) -> dict[str, Any]:
    """Arguments that layers take by these names."""
    degrees = graph.degrees(count)
    # Scalers tell nodes of different degree apart.
    scalers = SCALERS if len(degrees.nonzero()) > 1 else SCALERS[:1]
    widths = {"in_channels": units, "out_channels": units, "channels": units}
    return {**widths, "nn": mlp(units, units), "aggregators": [*AGGREGATORS], "scalers": [*scalers], "deg": degrees}


def _try(layer: ResidualLayer, name: str, units: int, graph: KeypointGraph) -> None:
    """Raise ValueError unless the layer maps nodes to nodes of the same width, those of each graph by themselves."""
    random = torch.Generator().manual_seed(0)
    nodes = torch.rand(2 * layer.count, units, generator=random)
    positions = torch.rand(2, layer.count, 2, generator=random) * 2 - 1
    training = layer.training
    wanted = f"{name} must map nodes of width {units} to as wide ones over edge_index"
    try:
        with torch.no_grad():
            both, first = (
                layer.eval().mapped(nodes[: graphs * layer.count], *graph.edges(positions[:graphs]))
                for graphs in (2, 1)
            )
    except Exception as error:
        raise ValueError(f"{wanted}, but failed: {' '.join(str(error).split())}") from error
    if not isinstance(both, Tensor) or both.shape != nodes.shape:
        given = tuple(both.shape) if isinstance(both, Tensor) else type(both).__name__
        raise ValueError(f"{wanted}, but of {tuple(nodes.shape)} it makes {given}")
    if not torch.allclose(both[: layer.count], first, atol=1e-4, rtol=1e-3):
        raise ValueError(f"{wanted}, but it mixes the nodes of different graphs")
    layer.train(training)
