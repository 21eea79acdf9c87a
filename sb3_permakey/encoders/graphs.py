"""Graphs of keypoints, in plain torch: who hears whom, and what an edge tells of the two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

GraphKind = Literal["full", "knn", "radius"]
EDGE_SIZE = 3
"""Numbers that an edge carries: where its sender lies from its receiver, (dy, dx), and how far."""
DEFAULT_K, DEFAULT_RADIUS = 4, 0.5
SAMPLED_GRAPHS = 1000


class Edges(NamedTuple):
    """Edges of B graphs of K nodes, laid out as `torch_geometric.data.Batch` does: node k of graph b is b K + k."""

    edge_index: Tensor
    """Senders and receivers, int64 (2, E)."""
    edge_attr: Tensor
    """Place of the sender from the receiver and their distance, (E, 3)."""


@dataclass(frozen=True)
class KeypointGraph:
    """Which keypoints hear of which others.

    :param kind: "full": each of all others; "knn": each of its nearest; "radius": each of those that are near. Of
        keypoints that are equally far the first are the nearest
    :param k: number of the nearest; None for 4, or for other kinds
    :param radius: how far the near ones are, in the units of positions, in which the frame is 2 wide; None for 0.5, or
        for other kinds
    :raises ValueError: for another kind, a number that is not positive, or one that is of another kind of graph
    """

    kind: GraphKind = "full"
    k: int | None = None
    radius: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(GraphKind):
            raise ValueError(f"graph must be one of {', '.join(get_args(GraphKind))}, not {self.kind!r}")
        for name, value, kind, default in (
            ("k", self.k, "knn", DEFAULT_K),
            ("radius", self.radius, "radius", DEFAULT_RADIUS),
        ):
            if value is not None and self.kind != kind:
                raise ValueError(f"{name} is of graph={kind!r}, not of {self.kind!r}")
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, not {value!r}")
            object.__setattr__(self, name, default if value is None and self.kind == kind else value)

    def check_count(self, count: int) -> None:
        """Raise ValueError unless each of so many keypoints has k others."""
        if self.k is not None and self.k >= count:
            raise ValueError(f"k must be from 1 to {count - 1} for {count} keypoints, not {self.k}")

    def edges(self, positions: Tensor) -> Edges:
        """The edges, graph by graph and receiver by receiver.

        :param positions: (B, K, 2) in [-1, 1]
        """
        batch, count, _ = positions.shape
        # From receiver i to sender j.
        steps = positions.unsqueeze(1) - positions.unsqueeze(2)
        distances = steps.square().sum(dim=-1)
        itself = torch.eye(count, dtype=torch.bool, device=positions.device)
        if self.kind == "radius":
            assert self.radius is not None
            graphs, receivers, senders = ((distances <= self.radius**2) & ~itself).nonzero(as_tuple=True)
        else:
            if self.k is None:
                # Not by nonzero, for whose size a GPU has to be waited for.
                senders = torch.arange(count - 1, device=positions.device).expand(count, -1)
                skipped = senders >= torch.arange(count, device=positions.device).unsqueeze(1)
                others = (senders + skipped).expand(batch, -1, -1)
            else:
                far_away = distances.masked_fill(itself, torch.inf)
                others = far_away.sort(dim=-1, stable=True).indices[..., : self.k]
            nodes = torch.arange(batch * count, device=positions.device).repeat_interleave(others.shape[-1])
            graphs, receivers, senders = nodes // count, nodes % count, others.flatten()
        places = steps[graphs, receivers, senders]
        index = graphs * count + torch.stack([senders, receivers])
        return Edges(index, torch.cat([places, places.norm(dim=-1, keepdim=True)], dim=-1))

    def degrees(self, count: int) -> Tensor:
        """How many nodes hear 0, 1, 2, ... others, int64.

        Of a graph; where that depends on places, of a thousand graphs whose nodes lie anywhere alike.

        :param count: nodes of a graph
        """
        if self.kind != "radius":
            return torch.bincount(torch.tensor([count - 1 if self.k is None else self.k] * count))
        positions = torch.rand(SAMPLED_GRAPHS, count, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
        heard = torch.bincount(self.edges(positions).edge_index[1], minlength=SAMPLED_GRAPHS * count)
        return torch.bincount(heard)
