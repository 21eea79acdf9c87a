"""The frozen trunk's features around keypoints, through convolutions."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from sb3_permakey.encoders.initialisation import initialise_layers
from sb3_permakey.encoders.masked_convolution import MaskedMaps, masked_convolution, masked_maps
from sb3_permakey.encoders.parts import require_keypoints
from sb3_permakey.envs.keypoint_space import KeypointSpace
from sb3_permakey.keypoints import KeypointModel, checkpoint_exists, load_checkpoint
from sb3_permakey.keypoints.device import autocast, resolve_precision
from sb3_permakey.keypoints.distinct_cells import distinct_features
from sb3_permakey.keypoints.layers import LOWEST, ConvBlock, Trunk, TrunkShape, gaussian_windows, same_conv2d
from sb3_permakey.keypoints.trunk import FrozenTrunk, TrunkWeights, fold_block, fold_trunk
from sb3_permakey.settings import require_choice

Precision = Literal["float32", "bfloat16", "auto"]
CNN_KERNELS, CNN_STRIDES = (3, 3, 3, 3), (1, 1, 2, 1)
FEWEST_IMAGES = 8
"""Of which it pays to look for cells that see the same."""
LARGEST_SHARE = 0.5
"""Of the cells inside windows that see different pixels; where there are more, whole maps are computed."""


class KeypointCNN(BaseFeaturesExtractor):
    """The frozen trunk's features, masked by the keypoints' windows, through convolutions (appendix A.2.3).

    Of the keypoints it reads the places alone: neither confidence nor displacements.

    The trunk is the one that made the keypoints: of the checkpoint named, or else the one that the observation space of
    `PermaKeyObservation` carries, through which a saved agent holds it in its file.

    :param observation_space: with "keypoints" (K, 2), "features" (K, C) and "image" uint8, channels first or last
    :param features_dim: units of the linear layer on top
    :param checkpoint: a keypoint model or a checkpoint's path; needed only where the space does not carry the trunk
    :param filters: filters of each convolution (paper: 128; the authors' released code: 32)
    :param precision: what the layers that learn compute in, while their weights and the trunk stay float32: "float32",
        "bfloat16", or "auto": bfloat16 where the device computes in it
    :raises ValueError: when the space has no keypoints or no image, nothing says which trunk made them, or the
        precision is another
    """

    def __init__(
        self,
        observation_space: spaces.Dict,
        features_dim: int = 128,
        checkpoint: KeypointModel | str | Path | None = None,
        filters: int = 128,
        precision: Precision = "float32",
    ) -> None:
        require_choice(get_args(Precision), precision=precision)
        super().__init__(observation_space, features_dim)
        keypoints = require_keypoints(observation_space, image=True)
        weights = _trunk_weights(keypoints, checkpoint)
        image_shape = keypoints["image"].shape
        assert image_shape is not None
        self.channels_last = image_shape[-1] == weights.image_channels
        self.map_size, self.window_std = weights.map_size, weights.window_std
        self.trunk = FrozenTrunk(weights)
        self.precision = precision
        shape = TrunkShape(CNN_KERNELS, (filters,) * len(CNN_KERNELS), CNN_STRIDES)
        self.convolutions = Trunk(shape, weights.channels)
        flat = filters * shape.map_sizes(weights.map_size)[-1] ** 2
        self.output = nn.Sequential(nn.Flatten(), nn.Linear(flat, features_dim), nn.ReLU())
        initialise_layers(self.convolutions)
        initialise_layers(self.output)

    def prepare_observations(self, observations: dict[str, Tensor]) -> dict[str, Any]:
        """What does not depend on weights, for networks that see the same observations to share.

        :param observations: "keypoints" and "image", as floats in [0, 1]
        :return: "masked", features times windows: maps (B, C, H, W), or on a CPU `MaskedMaps` of the same
        """
        images, centers = observations["image"], observations["keypoints"]
        images = images if self.channels_last else images.permute(0, 2, 3, 1).contiguous()
        masks = gaussian_windows(centers, self.map_size, self.window_std).sum(dim=1)
        if images.device.type == "cpu" and len(images) >= FEWEST_IMAGES and not masks.requires_grad:
            masked = self._masked_maps(images, masks.numpy())
            if masked is not None:
                return {"masked": masked}
        return {"masked": self.trunk(images.permute(0, 3, 1, 2)) * masks.unsqueeze(1)}

    def _masked_maps(self, images: Tensor, masks: np.ndarray) -> MaskedMaps | None:
        """Features times windows where few cells inside windows differ, else None."""
        places = np.flatnonzero(masks > LOWEST)
        features = distinct_features(self.trunk, images.detach(), places, LARGEST_SHARE)
        return None if features is None else masked_maps(features, places, masks, CNN_KERNELS[0])

    def forward(self, observations: dict[str, Any]) -> Tensor:
        """Features (B, features_dim), of observations or what `prepare_observations` makes of them.

        "image" comes as floats in [0, 1], as SB3's policies give it.
        """
        if "masked" not in observations:
            observations = self.prepare_observations(observations)
        masked = observations["masked"]
        first, *others = self.convolutions.blocks
        assert isinstance(first, ConvBlock)
        weight = first.conv.weight
        precision = resolve_precision(self.precision, weight.device)
        folds = isinstance(masked, MaskedMaps) and not self.training and not torch.is_grad_enabled()
        with nullcontext() if precision == torch.float32 else autocast(weight.device, precision):
            if isinstance(masked, MaskedMaps):
                sums = masked_convolution(masked, weight, precision)
            else:
                sums = same_conv2d(masked, weight)
            maps = first.norm(sums).relu_()
            for block in others:
                assert isinstance(block, ConvBlock)
                maps = _in_one(block, maps) if folds else block(maps)
            return self.output(maps).float()


def _in_one(block: ConvBlock, maps: Tensor) -> Tensor:
    """A block in evaluation mode, BatchNorm folded into its convolution: one pass less over maps of many images."""
    weight, bias = fold_block(block)
    return same_conv2d(maps, weight, bias, block.stride).relu_()


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
