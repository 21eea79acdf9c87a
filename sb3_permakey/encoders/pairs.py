"""A small graph network of keypoints, for many small updates."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn
from torch.nn import functional as F

from sb3_permakey.encoders.frame_context import FrameContext, Glimpses
from sb3_permakey.encoders.initialisation import initialise_layers
from sb3_permakey.encoders.message_passing import mean_messages
from sb3_permakey.encoders.parts import mlp, require_keypoints, rest_of, rest_size_of, with_waves
from sb3_permakey.encoders.pooling import mean_and_max

Context = Literal["image", "glimpses"]
"""What an encoder of keypoints reads of the frame itself."""


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
    :param context: what else is read: "image", the whole frame through a small CNN, beside the pooled nodes;
        "glimpses", what lies around each keypoint, as a part of its node; None: nothing
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
        context: Context | None = None,
        context_shift_px: int = 0,
        keypoint_dropout: float = 0.0,
        feature_dropout: float = 0.0,
    ) -> None:
        for name, dropout in (("keypoint_dropout", keypoint_dropout), ("feature_dropout", feature_dropout)):
            if not 0 <= dropout < 1:
                raise ValueError(f"{name} must be from 0 to below 1, not {dropout}")
        if context not in (None, *get_args(Context)):
            raise ValueError(f"context must be {', '.join(map(repr, get_args(Context)))} or None, not {context!r}")
        if context_shift_px and context != "image":
            raise ValueError("context_shift_px is of the context 'image'")
        keypoints = require_keypoints(observation_space, image=context is not None)
        pictures: spaces.Box = keypoints.spaces.get("image")  # type: ignore[assignment]
        frames = FrameContext(pictures, shift_px=context_shift_px) if context == "image" else None
        super().__init__(observation_space, 4 * units + (frames.features_dim if frames else 0))
        self.frames = frames
        self.glimpses = Glimpses(pictures, units) if context == "glimpses" else None
        _, channels = keypoints["features"].shape  # type: ignore[misc]
        self.position_frequencies = position_frequencies
        self.keypoint_dropout, self.feature_dropout = keypoint_dropout, feature_dropout
        self.normalise_features = nn.LayerNorm(channels)
        width = channels + 2 + 4 * position_frequencies + rest_size_of(keypoints)
        width += units if self.glimpses else 0
        self.encode_nodes = mlp(width, units)
        self.as_receiver, self.as_sender = nn.Linear(units, units), nn.Linear(units, units, bias=False)
        self.normalise_pooled = nn.LayerNorm(4 * units)
        initialise_layers(self)
        # Normalised features, positions and displacements have both signs.
        initialise_layers(self.encode_nodes[0], centred=False)

    def prepare_observations(self, observations: dict[str, Tensor]) -> dict[str, Tensor]:
        """What does not depend on weights, for networks that see the same observations to share.

        :param observations: "image" as floats in [0, 1]
        :return: "keypoints", "features" and perhaps "image" as they are, and "prepared" (B, K, other numbers of a node)
        """
        rest = [with_waves(observations["keypoints"], self.position_frequencies), *rest_of(observations)]
        kept = {name: part for name, part in observations.items() if name in ("keypoints", "features", "image")}
        return {**kept, "prepared": torch.cat(rest, dim=-1)}

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Features (B, 4 units), with a context more, of observations or what `prepare_observations` makes of them."""
        if "prepared" not in observations:
            observations = self.prepare_observations(observations)
        graphs = len(observations["features"])
        features = self.normalise_features(observations["features"])
        if self.feature_dropout:
            features = F.dropout(features, self.feature_dropout, self.training)
        # Nodes of all graphs in one axis until messages need two: products of matrices take fewer steps so.
        parts = [features, observations["prepared"]]
        if self.glimpses is not None:
            parts.append(self.glimpses(observations["image"], observations["keypoints"]))
        nodes = self.encode_nodes(torch.cat(parts, dim=-1).flatten(0, 1))
        if self.keypoint_dropout:
            apart = nodes.unflatten(0, (graphs, -1))
            nodes = F.dropout1d(apart, self.keypoint_dropout, self.training).flatten(0, 1)
        receivers, senders = (
            part.unflatten(0, (graphs, -1)) for part in (self.as_receiver(nodes), self.as_sender(nodes))
        )
        nodes = torch.cat([nodes.unflatten(0, (graphs, -1)), mean_messages(receivers, senders)], dim=-1)
        pooled = self.normalise_pooled(mean_and_max(nodes))
        if self.frames is None:
            return pooled
        return torch.cat([pooled, self.frames(observations["image"])], dim=-1)
