"""Attention over a redundant set of keypoints, which can be looked at."""

from __future__ import annotations

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from sb3_permakey.encoders.initialisation import initialise_layers
from sb3_permakey.encoders.parts import mlp, require_keypoints, rest_of, rest_size_of, with_waves


class KeypointAttention(BaseFeaturesExtractor):
    """A few learned queries read a set of keypoints, more of them than matter, by soft attention.

    The paper's discussion proposes to give agents an overcomplete set of keypoints and let them attend to those that
    they need, as Mott et al. 2019 (https://arxiv.org/abs/1906.02500) attend to places of a convolutional map; take 25
    peaks or more. A node is the keypoint's normalised feature, its place with sines and cosines, and where the
    observations have them its confidence and its last displacements, after two layers. Each query weighs all nodes by
    the softmax of its products with them, and its answer is their weighted mean; the answers are normalised one beside
    the other, so that the keypoints' order means nothing, and an agent sees nothing that its weights do not show.

    Mott et al. make queries from the memory's last state. Here they are learned and the same for all states: features
    of a window are computed at once, before the memory runs over it in one call, and know no state.

    :param observation_space: with "keypoints" (K, 2) and "features" (K, C), perhaps "confidence" (K,) and "motion"
        (K, 2n)
    :param queries: number of queries
    :param units: width of nodes, queries and answers; the features are `queries` times as many
    :param position_frequencies: number of frequencies pi, 2 pi, 4 pi, ... of sines and cosines beside the position
    :raises ValueError: when the space has no keypoints, there is no query, or there are fewer than 0 frequencies
    """

    def __init__(
        self, observation_space: spaces.Dict, queries: int = 4, units: int = 64, position_frequencies: int = 4
    ) -> None:
        if queries < 1:
            raise ValueError(f"queries must be 1 or more, not {queries}")
        if position_frequencies < 0:
            raise ValueError(f"position_frequencies must be 0 or more, not {position_frequencies}")
        keypoints = require_keypoints(observation_space)
        super().__init__(observation_space, queries * units)
        _, channels = keypoints["features"].shape  # type: ignore[misc]
        self.position_frequencies = position_frequencies
        self.normalise_features = nn.LayerNorm(channels)
        self.encode_nodes = mlp(channels + 2 + 4 * position_frequencies + rest_size_of(keypoints), units)
        self.queries = nn.Linear(units, queries, bias=False)
        self.normalise_answers = nn.LayerNorm(queries * units)
        initialise_layers(self)
        # Normalised features, positions and displacements have both signs.
        initialise_layers(self.encode_nodes[0], centred=False)

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Features (B, queries * units)."""
        nodes = self._nodes(observations)
        return self.normalise_answers((self._weights(nodes) @ nodes).flatten(1))

    def attention(self, observations: dict[str, Tensor]) -> Tensor:
        """How much each query looks at each keypoint, (B, queries, K), of which the keypoints' shares sum to 1.

        :param observations: as `forward` takes them
        """
        return self._weights(self._nodes(observations))

    def _nodes(self, observations: dict[str, Tensor]) -> Tensor:
        parts = [
            self.normalise_features(observations["features"]),
            with_waves(observations["keypoints"], self.position_frequencies),
            *rest_of(observations),
        ]
        return self.encode_nodes(torch.cat(parts, dim=-1))

    def _weights(self, nodes: Tensor) -> Tensor:
        return self.queries(nodes).transpose(1, 2).softmax(dim=-1)
