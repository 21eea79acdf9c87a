"""The paper's encoder: keypoints as the nodes of a fully connected graph."""

from __future__ import annotations

from typing import Literal

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn
from torch.nn import functional as F

from sb3_permakey.encoders.initialisation import initialise_layers
from sb3_permakey.encoders.message_passing import incoming_messages
from sb3_permakey.encoders.parts import MOTION_SCALE, mlp, motion_size_of, require_keypoints, with_waves


class InteractionNetwork(nn.Module):
    """One round of messages (Battaglia et al. 2016; equation 4): edges, their sum at each node, nodes.

    The graph is fully connected, so that edges are all pairs of nodes in one tensor and their sum at a node is a sum
    over an axis (`incoming_messages`); a general graph library's gather and scatter took 1.7 times as long. The first
    layer of f_e([v_i, v_j, e_ij]) is a sum of three products; those with v_i and v_j are computed once for each node
    instead of once for each edge.

    :param units: width of nodes and edges
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        self.update_edges = mlp(3 * units, units)
        self.update_nodes = mlp(2 * units, units)

    def forward(self, nodes: Tensor, edge: Tensor) -> Tensor:
        """Updated nodes.

        :param nodes: (B, K, units)
        :param edge: (1, units), the value of all edges
        :return: (B, K, units)
        """
        first, _, second, _ = self.update_edges
        assert isinstance(first, nn.Linear)
        of_receiver, of_sender, of_edge = first.weight.chunk(3, dim=1)
        receivers = F.linear(nodes, of_receiver, first.bias) + F.linear(edge, of_edge)
        senders = F.linear(nodes, of_sender)
        assert isinstance(second, nn.Linear)
        incoming = incoming_messages(receivers, senders, second.weight, second.bias)
        return self.update_nodes(torch.cat([nodes, incoming], dim=-1))


class KeypointGNN(BaseFeaturesExtractor):
    """Keypoints as the nodes of a fully connected graph (section 3, appendix A.2.3).

    A node is the mean feature inside the keypoint's window beside a learned embedding of its position, and its
    confidence and last displacements where the observations have them; edges start at zero. Encode, one step of an
    Interaction Network, decode; the decoded nodes are concatenated, or their mean and maximum are, into an MLP.

    Two additions to the paper, off by default, let it fit returns in fewer updates (benchmarks/results/encoders.md).
    Positions as they are tell an MLP little about small differences, so that `position_frequencies` adds their sines
    and cosines (Tancik et al. 2020, https://arxiv.org/abs/2006.10739). `layer_norm` normalises each keypoint's
    features, whose channels have a large mean in common, and what goes into the output MLP (Ba et al. 2016).

    :param observation_space: with "keypoints" (K, 2) and "features" (K, C), perhaps "confidence" (K,) and "motion"
        (K, 2n)
    :param features_dim: units of the output MLP's two layers
    :param units: units of all other layers
    :param aggregate: "concat", as in the paper, or "pool", whose result does not depend on the keypoints' order
    :param position_frequencies: number of frequencies pi, 2 pi, 4 pi, ... of sines and cosines beside the position
    :param layer_norm: whether features and aggregated nodes are normalised
    :raises ValueError: when the space has no keypoints, the aggregate is unknown, or there are fewer than 0 frequencies
    """

    def __init__(
        self,
        observation_space: spaces.Dict,
        features_dim: int = 128,
        units: int = 64,
        aggregate: Literal["concat", "pool"] = "concat",
        position_frequencies: int = 0,
        layer_norm: bool = False,
    ) -> None:
        super().__init__(observation_space, features_dim)
        if aggregate not in ("concat", "pool"):
            raise ValueError(f"aggregate must be 'concat' or 'pool', not {aggregate!r}")
        if position_frequencies < 0:
            raise ValueError(f"position_frequencies must be 0 or more, not {position_frequencies}")
        keypoints = require_keypoints(observation_space)
        count, channels = keypoints["features"].shape  # type: ignore[misc]
        self.aggregate = aggregate
        self.has_confidence = "confidence" in keypoints.spaces
        self.position_frequencies = position_frequencies
        position_size = 2 + 4 * position_frequencies
        self.embed_position = nn.Sequential(nn.Linear(position_size, units), nn.ReLU(), nn.Linear(units, units))
        self.has_motion, motion_size = "motion" in keypoints.spaces, motion_size_of(keypoints)
        self.encode_nodes = mlp(channels + units + self.has_confidence + motion_size, units)
        self.encode_edges = mlp(units, units)
        self.process = InteractionNetwork(units)
        self.decode_nodes = mlp(units, units)
        aggregated = (count if aggregate == "concat" else 2) * units
        self.output = mlp(aggregated, features_dim)
        self.normalise_features = nn.LayerNorm(channels) if layer_norm else nn.Identity()
        self.normalise_aggregate = nn.LayerNorm(aggregated) if layer_norm else nn.Identity()
        self.register_buffer("initial_edge", torch.zeros(1, units), persistent=False)
        initialise_layers(self)
        # Positions have both signs.
        initialise_layers(self.embed_position[0], centred=False)

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Features (B, features_dim)."""
        positions = with_waves(observations["keypoints"], self.position_frequencies)
        parts = [self.normalise_features(observations["features"]), self.embed_position(positions)]
        if self.has_confidence:
            parts.append(observations["confidence"].unsqueeze(-1))
        if self.has_motion:
            parts.append(observations["motion"] * MOTION_SCALE)
        nodes = self.encode_nodes(torch.cat(parts, dim=-1))
        edge = self.encode_edges(self.get_buffer("initial_edge"))
        nodes = self.decode_nodes(self.process(nodes, edge))
        if self.aggregate == "pool":
            aggregated = torch.cat([nodes.mean(dim=1), nodes.amax(dim=1)], dim=-1)
        else:
            aggregated = nodes.flatten(1)
        return self.output(self.normalise_aggregate(aggregated))
