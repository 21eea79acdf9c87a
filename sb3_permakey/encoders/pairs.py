"""A small graph network of keypoints, for many small updates."""

from __future__ import annotations

from typing import Literal

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn
from torch.nn import functional as F

from sb3_permakey.encoders.frame_context import FrameContext
from sb3_permakey.encoders.initialisation import initialise_layers
from sb3_permakey.encoders.message_passing import mean_messages
from sb3_permakey.encoders.parts import mlp, require_keypoints, rest_of, rest_size_of, with_waves


class KeypointPairs(BaseFeaturesExtractor):
    """A small graph network for many small updates: keypoints as nodes, one round of messages of all pairs, pooled.

    A node is the keypoint's normalised feature, its place with sines and cosines, and where the observations have them
    its confidence and its last displacements. After two layers a node hears the mean of relu(W v_i + U v_j) over all
    nodes j; nodes beside these messages are pooled by mean and maximum, so that their order means nothing, and
    normalised. It costs a fraction of `KeypointGNN`, since pairs go through no matrix product.

    :param observation_space: with "keypoints" (K, 2) and "features" (K, C), perhaps "confidence" (K,), "motion"
        (K, 2n) and "image" uint8, channels first or last
    :param units: width of nodes and messages; the pooled features are 4 times as many
    :param position_frequencies: number of frequencies pi, 2 pi, 4 pi, ... of sines and cosines beside the position
    :param context: what else is read: "image", the whole frame through a small CNN; None: nothing
    :param context_shift_px: while learning the whole frame is shifted by up to so many pixels in each direction
    :param keypoint_dropout: while learning each keypoint is left out with this probability (Srivastava et al. 2014)
    :param feature_dropout: and each number of its normalised feature with this one
    :raises ValueError: when the space has no keypoints, no image where it is needed, the context is unknown, or a
        probability is not from 0 to below 1
    """

    def __init__(
        self,
        observation_space: spaces.Dict,
        units: int = 64,
        position_frequencies: int = 4,
        context: Literal["image"] | None = None,
        context_shift_px: int = 0,
        keypoint_dropout: float = 0.0,
        feature_dropout: float = 0.0,
    ) -> None:
        for name, dropout in (("keypoint_dropout", keypoint_dropout), ("feature_dropout", feature_dropout)):
            if not 0 <= dropout < 1:
                raise ValueError(f"{name} must be from 0 to below 1, not {dropout}")
        if context not in (None, "image"):
            raise ValueError(f"context must be 'image' or None, not {context!r}")
        keypoints = require_keypoints(observation_space, image=context == "image")
        frames = FrameContext(keypoints["image"], shift_px=context_shift_px) if context else None  # type: ignore[arg-type]
        super().__init__(observation_space, 4 * units + (frames.features_dim if frames else 0))
        self.frames = frames
        _, channels = keypoints["features"].shape  # type: ignore[misc]
        self.position_frequencies = position_frequencies
        self.keypoint_dropout, self.feature_dropout = keypoint_dropout, feature_dropout
        self.normalise_features = nn.LayerNorm(channels)
        width = channels + 2 + 4 * position_frequencies + rest_size_of(keypoints)
        self.encode_nodes = mlp(width, units)
        self.as_receiver, self.as_sender = nn.Linear(units, units), nn.Linear(units, units, bias=False)
        self.normalise_pooled = nn.LayerNorm(4 * units)
        initialise_layers(self)
        # Normalised features, positions and displacements have both signs.
        initialise_layers(self.encode_nodes[0], centred=False)

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Features (B, 4 units), with a context more; "image" comes as floats in [0, 1]."""
        features = self.normalise_features(observations["features"])
        parts = [
            F.dropout(features, self.feature_dropout, self.training) if self.feature_dropout else features,
            with_waves(observations["keypoints"], self.position_frequencies),
            *rest_of(observations),
        ]
        nodes = self.encode_nodes(torch.cat(parts, dim=-1))
        if self.keypoint_dropout:
            nodes = F.dropout1d(nodes, self.keypoint_dropout, self.training)
        messages = mean_messages(self.as_receiver(nodes), self.as_sender(nodes))
        nodes = torch.cat([nodes, messages], dim=-1)
        pooled = self.normalise_pooled(torch.cat([nodes.mean(dim=1), nodes.amax(dim=1)], dim=-1))
        if self.frames is None:
            return pooled
        return torch.cat([pooled, self.frames(observations["image"])], dim=-1)
