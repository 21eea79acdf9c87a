"""Transporter, the baseline: keypoints that explain what moves between two frames (Kulkarni et al., NeurIPS 2019)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import NamedTuple, get_args

import torch
from torch import Tensor, nn

from sb3_permakey.keypoints.layers import (
    MOST_KEYPOINTS,
    ConvBlock,
    Softmax,
    Trunk,
    TrunkShape,
    gaussian_windows,
    soft_argmax,
    to_images,
)
from sb3_permakey.keypoints.model import Frames, FrozenModel, KeypointModel, Keypoints, features_at, register_model
from sb3_permakey.keypoints.trunk import fold_blocks
from sb3_permakey.keypoints.vae import Decoder
from sb3_permakey.settings import require_at_least, require_choice, require_positive, require_range

FEATURES = TrunkShape(kernels=(3, 3, 3, 3), filters=(16, 16, 32, 32), strides=(1, 1, 2, 1))
"""The features and the PointNet (PermaKey's appendix A.2.2): maps of 84, 84, 42 and 42."""


@dataclass(frozen=True)
class TransporterConfig:
    """Settings of the method, with the values of PermaKey's authors."""

    num_keypoints: int = 7
    """K, number of keypoints (paper: BattleZone 8, Seaquest 10, MsPacman 7, Frostbite 20)."""
    window_std: float = 0.1
    """Width of a keypoint's window exp(-distance^2 / std^2), where an image's side is 2."""
    image_channels: int = 3
    """Channels of the images."""
    softmax: Softmax = "axes"
    """The PointNet's soft argmax: axes, over each axis' average (paper); plane, over the whole map."""

    def __post_init__(self) -> None:
        require_range(1, MOST_KEYPOINTS, num_keypoints=self.num_keypoints)
        require_at_least(1, image_channels=self.image_channels)
        require_choice(get_args(Softmax), softmax=self.softmax)
        require_positive(window_std=self.window_std)


class TransporterLosses(NamedTuple):
    """The losses of one batch, scalars."""

    reconstruction: Tensor
    """Mean squared error of the reconstructed target, over images, pixels and channels."""


def transport_features(
    source_features: Tensor, target_features: Tensor, source_windows: Tensor, target_windows: Tensor
) -> Tensor:
    """Put the target's features at its keypoints into the source's features, one keypoint after another.

    Keypoint k changes the features by phi <- (1 - h_s^k) (1 - h_t^k) phi + h_t^k phi_t, starting at the source's. The
    result is linear in the two features, so that only their coefficients, maps of one channel, are worked out keypoint
    by keypoint.

    :param source_features: (B, C, H, W)
    :param target_features: (B, C, H, W), phi_t
    :param source_windows: (B, K, H, W) in [0, 1], h_s
    :param target_windows: (B, K, H, W) in [0, 1], h_t
    :return: (B, C, H, W), of the features' type
    """
    # From the last keypoint to the first: what one puts in, all later ones suppress. No torch.cumprod: its gradient
    # looks for zeros in the data, for which a GPU has to stop.
    kept = torch.ones_like(target_windows[:, :1])
    filled = torch.zeros_like(kept)
    for k in reversed(range(target_windows.shape[1])):
        source_window, target_window = source_windows[:, k : k + 1], target_windows[:, k : k + 1]
        filled = filled + target_window * kept
        kept = kept * (1 - source_window) * (1 - target_window)
    return source_features * kept.to(source_features.dtype) + target_features * filled.to(target_features.dtype)


@register_model
class Transporter(KeypointModel):
    """Keypoints from which one frame of an episode turns into another.

    The reconstruction ends in a sigmoid, as PermaKey's: images lie in [0, 1], and the two methods' decoders then differ
    in nothing but their size.

    :param config: settings, those of PermaKey's authors by default
    """

    kind = "transporter"
    config_class = TransporterConfig
    config: TransporterConfig

    def __init__(self, config: TransporterConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TransporterConfig()
        self.features = Trunk(FEATURES, config.image_channels)
        self.pointnet = Trunk(FEATURES, config.image_channels)
        self.to_keypoints = nn.Conv2d(FEATURES.filters[-1], config.num_keypoints, 1)
        self.refine = Decoder(FEATURES, config.image_channels)
        self.feature_channels = FEATURES.filters[-1]
        self.feature_size = FEATURES.map_sizes()[-1]

    def losses(self, source: Tensor, target: Tensor) -> TransporterLosses:
        """Losses of a batch of frame pairs; gradients flow through the target alone.

        In training mode source and target are normalised by their own batch's statistics, which come from the same
        frames' distribution, and both enter the running ones.

        :param source: (B, C, 84, 84) in [0, 1]
        :param target: (B, C, 84, 84) in [0, 1], a frame of the same episode
        """
        # The target goes first: autocast keeps each weight's bfloat16 copy, and in older releases of torch, one made
        # without gradients cuts them off (pytorch issue 158232).
        target_features, target_windows = self._features_and_windows(target)
        with torch.no_grad():
            source_features, source_windows = self._features_and_windows(source)
        transported = transport_features(source_features, target_features, source_windows, target_windows)
        return TransporterLosses((self.refine(transported) - target.float()).square().mean())

    def total_loss(self, losses: TransporterLosses) -> Tensor:
        """The reconstruction."""
        return losses.reconstruction

    def stopping_loss(self, losses: TransporterLosses) -> Tensor:
        """The reconstruction."""
        return losses.reconstruction

    def keypoints(self, images: Tensor) -> Keypoints:
        """Keypoints of images (B, C, 84, 84) in [0, 1]."""
        centers = self._centers(images)
        return Keypoints(centers, features_at(centers, self.features(images)[-1], self.config.window_std))

    def frozen(self, precision: torch.dtype, *, streaming: bool) -> FoldedTransporter:
        """The folded network, which computes everything."""
        return FoldedTransporter(self, precision)

    @property
    def training_only(self) -> tuple[str, ...]:
        """The decoder."""
        return ("refine.",)

    def feature_blocks(self) -> list[ConvBlock]:
        """All layers of the features."""
        return [block for block in self.features.blocks if isinstance(block, ConvBlock)]

    def _centers(self, images: Tensor) -> Tensor:
        return soft_argmax(self.to_keypoints(self.pointnet(images)[-1]), self.config.softmax)

    def _features_and_windows(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, C, H, W) and the keypoints' windows (B, K, H, W) on their map."""
        windows = gaussian_windows(self._centers(images), self.feature_size, self.config.window_std)
        return self.features(images)[-1], windows


class FoldedTransporter(FrozenModel):
    """A frozen Transporter, for inference mode.

    :param model: the trained model, which is left as it is
    :param precision: of all layers but the last
    """

    config: TransporterConfig

    def __init__(self, model: Transporter, precision: torch.dtype) -> None:
        super().__init__()
        self.config = model.config
        self.trunk, self.pointnet = (
            fold_blocks(trunk.blocks).to(precision) for trunk in (model.features, model.pointnet)
        )
        self.to_keypoints = copy.deepcopy(model.to_keypoints)
        self.precision = precision

    def keypoints(self, frames: Frames) -> Keypoints:
        """Keypoints of frames uint8 (B, 84, 84, C)."""
        images = self._images(frames)
        deepest = self.pointnet.maps(images)[-1].float()
        centers = soft_argmax(self.to_keypoints(deepest), self.config.softmax)
        return Keypoints(centers, self.features_at(centers, self.trunk.maps(images)[-1]))

    def features(self, frames: Frames) -> Tensor:
        """The features of frames uint8 (B, 84, 84, C)."""
        return self.trunk.maps(self._images(frames))[-1]

    def _images(self, frames: Frames) -> Tensor:
        return to_images(frames, self.to_keypoints.weight.device).to(self.precision)
