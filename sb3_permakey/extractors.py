"""Keypoint encoders: feature extractors for SB3's policies, sb3-contrib's and this package's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn
from torch.nn import functional as F

from sb3_permakey.frame_context import FrameContext
from sb3_permakey.initialisation import initialise_layers
from sb3_permakey.keypoint_space import KeypointSpace
from sb3_permakey.keypoints import KeypointModel, checkpoint_exists, load_checkpoint
from sb3_permakey.keypoints.layers import Trunk, TrunkShape, gaussian_windows
from sb3_permakey.keypoints.trunk import FrozenTrunk, TrunkWeights, fold_trunk
from sb3_permakey.messages import incoming_messages, mean_messages

CNN_KERNELS, CNN_STRIDES = (3, 3, 3, 3), (1, 1, 2, 1)
MOTION_SCALE = 10.0
"""Objects move by some hundredths of the image in a step; so scaled, displacements are as large as positions."""


def require_keypoints(space: spaces.Space, *, image: bool = False) -> spaces.Dict:
    """The space as a Dict of keypoints.

    :param space: an observation space
    :param image: True when the pixels are needed too
    :raises ValueError: when the space has no keypoints, those of several frames, or no image where it is needed
    """
    if not isinstance(space, spaces.Dict) or not {"keypoints", "features"} <= set(space.spaces):
        raise ValueError(
            "keypoint encoders need observations with keypoints and features: wrap the environment with "
            f"PermaKeyObservation first (it has {space})"
        )
    places, features = (space[name].shape or () for name in ("keypoints", "features"))
    if len(places) != 2 or places[-1] != 2 or len(features) != 2 or places[0] != features[0]:
        raise ValueError(
            f"keypoint encoders read one frame's keypoints (K, 2) and features (K, C), not {places} and {features}: "
            "leave VecFrameStack out; PermaKeyObservation(..., history=n) gives motion, and recurrent agents remember"
        )
    if image and "image" not in space.spaces:
        raise ValueError("the encoder needs the pixels too: wrap with PermaKeyObservation(..., keep_image=True)")
    return space


def motion_size_of(keypoints: spaces.Dict) -> int:
    """How many numbers tell a keypoint's last displacements; 0 where the observations have none."""
    motion = keypoints.spaces.get("motion")
    return 0 if motion is None else motion.shape[-1]  # type: ignore[index]


def mlp(in_features: int, units: int) -> nn.Sequential:
    """The paper's building block: two layers of ReLU units (appendix A.2.3)."""
    return nn.Sequential(nn.Linear(in_features, units), nn.ReLU(), nn.Linear(units, units), nn.ReLU())


def with_waves(positions: Tensor, frequencies: int) -> Tensor:
    """Positions beside their sines and cosines with `frequencies` frequencies pi, 2 pi, 4 pi, ...

    :param positions: (..., D) in [-1, 1]
    :return: (..., D + 2 D frequencies)
    """
    if not frequencies:
        return positions
    factors = math.pi * 2.0 ** torch.arange(frequencies, device=positions.device)
    angles = (positions.unsqueeze(-1) * factors).flatten(-2)
    return torch.cat([positions, angles.sin(), angles.cos()], dim=-1)


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
    :raises ValueError: when the space has no keypoints, no image where it is needed, or the context is unknown
    """

    def __init__(
        self,
        observation_space: spaces.Dict,
        units: int = 64,
        position_frequencies: int = 4,
        context: Literal["image"] | None = None,
        context_shift_px: int = 0,
    ) -> None:
        if context not in (None, "image"):
            raise ValueError(f"context must be 'image' or None, not {context!r}")
        keypoints = require_keypoints(observation_space, image=context == "image")
        frames = FrameContext(keypoints["image"], shift_px=context_shift_px) if context else None  # type: ignore[arg-type]
        super().__init__(observation_space, 4 * units + (frames.features_dim if frames else 0))
        self.frames = frames
        _, channels = keypoints["features"].shape  # type: ignore[misc]
        self.position_frequencies = position_frequencies
        self.has_confidence = "confidence" in keypoints.spaces
        self.has_motion, motion_size = "motion" in keypoints.spaces, motion_size_of(keypoints)
        self.normalise_features = nn.LayerNorm(channels)
        width = channels + 2 + 4 * position_frequencies + self.has_confidence + motion_size
        self.encode_nodes = mlp(width, units)
        self.as_receiver, self.as_sender = nn.Linear(units, units), nn.Linear(units, units, bias=False)
        self.normalise_pooled = nn.LayerNorm(4 * units)
        initialise_layers(self)
        # Normalised features, positions and displacements have both signs.
        initialise_layers(self.encode_nodes[0], centred=False)

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Features (B, 4 units), with a context more; "image" comes as floats in [0, 1]."""
        parts = [
            self.normalise_features(observations["features"]),
            with_waves(observations["keypoints"], self.position_frequencies),
        ]
        if self.has_confidence:
            parts.append(observations["confidence"].unsqueeze(-1))
        if self.has_motion:
            parts.append(observations["motion"] * MOTION_SCALE)
        nodes = self.encode_nodes(torch.cat(parts, dim=-1))
        messages = mean_messages(self.as_receiver(nodes), self.as_sender(nodes))
        nodes = torch.cat([nodes, messages], dim=-1)
        pooled = self.normalise_pooled(torch.cat([nodes.mean(dim=1), nodes.amax(dim=1)], dim=-1))
        if self.frames is None:
            return pooled
        return torch.cat([pooled, self.frames(observations["image"])], dim=-1)


class KeypointCNN(BaseFeaturesExtractor):
    """The frozen trunk's features, masked by the keypoints' windows, through convolutions (appendix A.2.3).

    Of the keypoints it reads the places alone: neither confidence nor displacements.

    The trunk is the one that made the keypoints: of the checkpoint named, or else the one that the observation space of
    `PermaKeyObservation` carries, through which a saved agent holds it in its file.

    :param observation_space: with "keypoints" (K, 2), "features" (K, C) and "image" uint8, channels first or last
    :param features_dim: units of the linear layer on top
    :param checkpoint: a keypoint model or a checkpoint's path; needed only where the space does not carry the trunk
    :param filters: filters of each convolution (paper: 128; the authors' released code: 32)
    :raises ValueError: when the space has no keypoints or no image, or nothing says which trunk made them
    """

    def __init__(
        self,
        observation_space: spaces.Dict,
        features_dim: int = 128,
        checkpoint: KeypointModel | str | Path | None = None,
        filters: int = 128,
    ) -> None:
        super().__init__(observation_space, features_dim)
        keypoints = require_keypoints(observation_space, image=True)
        weights = _trunk_weights(keypoints, checkpoint)
        image_shape = keypoints["image"].shape
        assert image_shape is not None
        self.channels_last = image_shape[-1] == weights.image_channels
        self.map_size, self.window_std = weights.map_size, weights.window_std
        self.trunk = FrozenTrunk(weights)
        shape = TrunkShape(CNN_KERNELS, (filters,) * len(CNN_KERNELS), CNN_STRIDES)
        self.convolutions = Trunk(shape, weights.channels)
        flat = filters * shape.map_sizes(weights.map_size)[-1] ** 2
        self.output = nn.Sequential(nn.Flatten(), nn.Linear(flat, features_dim), nn.ReLU())
        initialise_layers(self.convolutions)
        initialise_layers(self.output)

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Features (B, features_dim); "image" comes as floats in [0, 1], as SB3's policies give it."""
        images = observations["image"]
        if self.channels_last:
            images = images.permute(0, 3, 1, 2)
        windows = gaussian_windows(observations["keypoints"], self.map_size, self.window_std)
        masked = self.trunk(images) * windows.sum(dim=1, keepdim=True)
        return self.output(self.convolutions(masked)[-1])


KeypointEncoder = Literal["gnn", "pairs", "cnn"]
KEYPOINT_ENCODERS: dict[KeypointEncoder, type[BaseFeaturesExtractor]] = {
    "gnn": KeypointGNN,
    "pairs": KeypointPairs,
    "cnn": KeypointCNN,
}


def _trunk_weights(space: spaces.Dict, checkpoint: KeypointModel | str | Path | None) -> TrunkWeights:
    """The trunk that made the keypoints: of the checkpoint named, or, where that has gone, the one in the space."""
    carried = space.trunk if isinstance(space, KeypointSpace) else None
    if isinstance(checkpoint, KeypointModel):
        return fold_trunk(checkpoint)
    if carried is not None and (checkpoint is None or not checkpoint_exists(checkpoint)):
        return carried
    if checkpoint is None:
        raise ValueError(
            "the observation space does not carry the keypoint model's trunk: "
            "name the checkpoint in features_extractor_kwargs=dict(checkpoint=...)"
        )
    return fold_trunk(load_checkpoint(checkpoint))
