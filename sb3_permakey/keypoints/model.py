"""What every keypoint method offers, so that detector, training and agents need not know which one it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from sb3_permakey.keypoints.layers import ConvBlock


class Keypoints(NamedTuple):
    """Keypoints of B images: tensors inside the networks, float32 arrays from a detector."""

    centers: Any
    """(B, K, 2), (y, x) in [-1, 1]."""
    features: Any
    """(B, K, C), mean activation of the features inside each window."""
    confidence: Any = None
    """(B, K) in [0, 1], how far each keypoint is to be trusted; None where the readout does not say."""


class KeypointModelConfig(Protocol):
    """The settings that all methods share."""

    @property
    def num_keypoints(self) -> int:
        """K, number of keypoints."""

    @property
    def window_std(self) -> float:
        """Width of a keypoint's window exp(-distance^2 / std^2), where an image's side is 2."""

    @property
    def image_channels(self) -> int:
        """Channels of the images."""


class KeypointModel(nn.Module, ABC):
    """A network from images to keypoints and the features inside their windows."""

    config: KeypointModelConfig
    feature_channels: int
    """C, channels of the features."""
    feature_size: int
    """Height and width of the features' map for 84x84 images, in cells."""
    for_detection_only: bool = False
    """True for a model from a file without what only training needs."""

    @abstractmethod
    def keypoints(self, images: Tensor) -> Keypoints:
        """Keypoints of images (B, C, 84, 84) in [0, 1]."""

    @abstractmethod
    def feature_blocks(self) -> list[ConvBlock]:
        """The convolutions, first to last, that make the features from images."""

    @abstractmethod
    def total_loss(self, losses: Any) -> Tensor:
        """The scalar that is minimised, of the losses that the model's own `losses` gives."""

    @abstractmethod
    def stopping_loss(self, losses: Any) -> Tensor:
        """The scalar whose value on the validation frames decides about early stopping."""
