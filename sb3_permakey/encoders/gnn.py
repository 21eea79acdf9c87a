"""The paper's encoder: keypoints as the nodes of a graph."""

from __future__ import annotations

from typing import Any, Literal

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from sb3_permakey.encoders.graphs import EDGE_SIZE, GraphKind, KeypointGraph
from sb3_permakey.encoders.interaction import InteractionNetwork
from sb3_permakey.encoders.parts import mlp, require_keypoints, rest_of, rest_size_of, with_waves

INTERACTION = "interaction"


class KeypointGNN(BaseFeaturesExtractor):
    """Keypoints as the nodes of a graph; the paper's is fully connected (section 3, appendix A.2.3).

    A node is the mean feature inside the keypoint's window beside a learned embedding of its position, and its
    confidence and last displacements where the observations have them. Encode, a step of an Interaction Network, whose
    edges start at zero, decode; the decoded nodes are concatenated, or their mean and maximum are, into an MLP.

    Two additions to the paper, off by default, let it fit returns in fewer updates (benchmarks/results/encoders.md).
    Positions as they are tell an MLP little about small differences, so that `position_frequencies` adds their sines
    and cosines (Tancik et al. 2020, https://arxiv.org/abs/2006.10739). `layer_norm` normalises each keypoint's
    features, whose channels have a large mean in common, and what goes into the output MLP (Ba et al. 2016).

    The step can be any layer of torch-geometric instead, and the graph another one (docs/encoders.md). Edges then carry
    the place of the sender from the receiver and their distance where the layer takes edge_attr; those of the
    Interaction Network start there in any graph but the full one.

    All layers keep torch's own first weights. With orthogonal ones, which tell states apart from the start, it fits
    what it has seen sooner and explains less of later play (benchmarks/results/encoders.md).

    :param observation_space: with "keypoints" (K, 2) and "features" (K, C), perhaps "confidence" (K,) and "motion"
        (K, 2n)
    :param features_dim: units of the output MLP's two layers
    :param units: units of all other layers
    :param aggregate: "concat", as in the paper, or "pool", whose result does not depend on the keypoints' order
    :param position_frequencies: number of frequencies pi, 2 pi, 4 pi, ... of sines and cosines beside the position
    :param layer_norm: whether features and aggregated nodes are normalised
    :param conv: "interaction", the name of a layer in torch_geometric.nn such as "GATv2Conv", or a class that is made
        and called like one
    :param conv_kwargs: the layer's arguments beside its widths; of PNAConv and GIN's also those that it must have
    :param num_layers: how many of these layers follow each other
    :param graph: which keypoints a keypoint hears: "full", all others; "knn", its nearest; "radius", those near it
    :param k: with "knn", how many; None for 4
    :param radius: with "radius", how far, where the frame is 2 wide; None for 0.5
    :raises ValueError: when the space has no keypoints, the aggregate is unknown, there are fewer than 0 frequencies or
        1 layer, or layer or graph cannot be as wanted
    """

    def __init__(
        self,
        observation_space: spaces.Dict,
        features_dim: int = 128,
        units: int = 64,
        aggregate: Literal["concat", "pool"] = "concat",
        position_frequencies: int = 0,
        layer_norm: bool = False,
        conv: str | type[nn.Module] = INTERACTION,
        conv_kwargs: dict[str, Any] | None = None,
        num_layers: int = 1,
        graph: GraphKind = "full",
        k: int | None = None,
        radius: float | None = None,
    ) -> None:
        super().__init__(observation_space, features_dim)
        if aggregate not in ("concat", "pool"):
            raise ValueError(f"aggregate must be 'concat' or 'pool', not {aggregate!r}")
        if position_frequencies < 0:
            raise ValueError(f"position_frequencies must be 0 or more, not {position_frequencies}")
        if num_layers < 1:
            raise ValueError(f"num_layers must be 1 or more, not {num_layers}")
        if conv == INTERACTION and conv_kwargs:
            raise ValueError(
                f"conv_kwargs are of torch-geometric's layers; 'interaction' takes none, not {conv_kwargs}"
            )
        keypoints = require_keypoints(observation_space)
        count, channels = keypoints["features"].shape  # type: ignore[misc]
        self.aggregate = aggregate
        self.graph = KeypointGraph(graph, k, radius)
        self.graph.check_count(count)
        self.position_frequencies = position_frequencies
        position_size = 2 + 4 * position_frequencies
        self.embed_position = nn.Sequential(nn.Linear(position_size, units), nn.ReLU(), nn.Linear(units, units))
        self.encode_nodes = mlp(channels + units + rest_size_of(keypoints), units)
        self.all_edges_alike = conv == INTERACTION and graph == "full"
        self.encode_edges: nn.Module = nn.Identity()
        if conv == INTERACTION:
            self.encode_edges = mlp(units if graph == "full" else EDGE_SIZE, units)
        # The first layer is no part of a list, so that parameters have the names that they had before there were more.
        self.process, *further = (self._layer(conv, conv_kwargs or {}, units, count) for _ in range(num_layers))
        self.decode_nodes = mlp(units, units)
        aggregated = (count if aggregate == "concat" else 2) * units
        self.output = mlp(aggregated, features_dim)
        self.normalise_features = nn.LayerNorm(channels) if layer_norm else nn.Identity()
        self.normalise_aggregate = nn.LayerNorm(aggregated) if layer_norm else nn.Identity()
        self.process_further = nn.ModuleList(further)
        self.register_buffer("initial_edge", torch.zeros(1, units), persistent=False)

    def _layer(self, conv: str | type[nn.Module], conv_kwargs: dict[str, Any], units: int, count: int) -> nn.Module:
        if self.all_edges_alike:
            return InteractionNetwork(units)
        from sb3_permakey.encoders import graph_layers

        if conv == INTERACTION:
            return graph_layers.InteractionConv(units)
        return graph_layers.make_layer(conv, conv_kwargs, units, self.graph, count)

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Features (B, features_dim)."""
        nodes = self.nodes(observations)
        if self.aggregate == "pool":
            aggregated = torch.cat([nodes.mean(dim=1), nodes.amax(dim=1)], dim=-1)
        else:
            aggregated = nodes.flatten(1)
        return self.output(self.normalise_aggregate(aggregated))

    def nodes(self, observations: dict[str, Tensor]) -> Tensor:
        """The decoded nodes, (B, K, units), in the order of the keypoints."""
        positions = observations["keypoints"]
        place = self.embed_position(with_waves(positions, self.position_frequencies))
        features = self.normalise_features(observations["features"])
        nodes = self.encode_nodes(torch.cat([features, place, *rest_of(observations)], dim=-1))
        layers = (self.process, *self.process_further)
        if self.all_edges_alike:
            edge = self.encode_edges(self.get_buffer("initial_edge"))
            for layer in layers:
                nodes = layer(nodes, edge)
            return self.decode_nodes(nodes)
        edges = self.graph.edges(positions)
        attributes = self.encode_edges(edges.edge_attr)
        flat = nodes.flatten(0, 1)
        for layer in layers:
            flat = layer(flat, edges.edge_index, attributes)
        return self.decode_nodes(flat.view_as(nodes))
