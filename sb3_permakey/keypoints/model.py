"""What every keypoint method offers, so that detector, training and agents need not know which one it is.

A new method is a class like `Transporter`, in any module, with `@register_model` above it: from then on checkpoints
hold it, and detectors, wrappers and scores take it. How it is trained it says to `sb3_permakey.pretraining.stages`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple, NoReturn, Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from sb3_permakey.keypoints.layers import ConvBlock, means_around


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
    """A network from images to keypoints and the features inside their windows; its one argument is its config."""

    kind: ClassVar[str]
    """What checkpoints and commands call the method."""
    config_class: ClassVar[type[Any]]
    """A dataclass of its settings, JSON's types alone or tuples of them."""
    streams: ClassVar[bool] = False
    """Whether its frozen form can compute what has changed alone."""
    has_pointnet: ClassVar[bool] = True
    """Whether it has keypoints of its own, each of which keeps its part of the scene."""
    auto_precision: ClassVar[str] = "auto"
    """What a detector's precision "auto" stands for: float32 where small products gain nothing by bfloat16."""
    config: KeypointModelConfig
    feature_channels: int
    """C, channels of the features."""
    feature_size: int
    """Height and width of the features' map for 84x84 images, in cells."""
    for_detection_only: bool = False
    """True for a model from a file without what only training needs."""
    error_map_layers: tuple[int, ...] = ()
    """The encoder's layers that have an error map, ascending; none in a model without such maps."""

    @abstractmethod
    def keypoints(self, images: Tensor) -> Keypoints:
        """Keypoints of images (B, C, 84, 84) in [0, 1]."""

    @abstractmethod
    def frozen(self, precision: torch.dtype, *, streaming: bool) -> FrozenModel:
        """Its form in use, a copy whose keypoints are the same within rounding.

        :param precision: how it computes, float32 or bfloat16
        :param streaming: compute what has changed alone; only asked of models that `streams`
        """

    @property
    def training_only(self) -> tuple[str, ...]:
        """Beginnings of the names of the tensors that keypoints and error maps do without."""
        return ()

    def take_over(self, source: KeypointModel) -> None:
        """Take over another model's modules that stay as they are while the rest is trained anew.

        :raises ValueError: when this one has none, or they do not fit; the message goes on after the model's name
        """
        raise ValueError(f"holds a {type(source).__name__}; a {type(self).__name__} takes no modules over")

    @abstractmethod
    def feature_blocks(self) -> list[ConvBlock]:
        """The convolutions, first to last, that make the features from images."""

    @abstractmethod
    def total_loss(self, losses: Any) -> Tensor:
        """The scalar that is minimised, of the losses that the model's own `losses` gives."""

    @abstractmethod
    def stopping_loss(self, losses: Any) -> Tensor:
        """The scalar whose value on the validation frames decides about early stopping."""


MODELS: dict[str, type[KeypointModel]] = {}
"""The methods by the names that checkpoints call them by."""
Model = TypeVar("Model", bound=type[KeypointModel])


def register_model(model: Model) -> Model:
    """Make a keypoint method known by its kind; a decorator of its class."""
    MODELS[model.kind] = model
    return model


Frames: TypeAlias = np.ndarray | Tensor
"""Frames uint8 (B, 84, 84, C): an array, or to networks that do not stream a tensor on their device."""


class FirstErrorMap(NamedTuple):
    """What a readout of error maps reads, of B frames."""

    features: Tensor
    """(B, c, h, w), what `features_at` reads; valid until the network sees other frames."""
    error_map: Tensor
    """(B, h', w') in [0, 1], one value a patch, of the first layer that has one."""
    cell_size: int
    """Side of a patch in the image, in pixels."""


class FrozenModel(nn.Module, ABC):
    """A keypoint model in use, for inference mode: frames uint8 (B, 84, 84, C) in, tensors out.

    What it gives beyond `keypoints` and `features` is for models with error maps; others need not define it.
    """

    config: KeypointModelConfig

    @abstractmethod
    def keypoints(self, frames: Frames) -> Keypoints:
        """The model's own keypoints of frames."""

    @abstractmethod
    def features(self, frames: Frames) -> Tensor:
        """What `features_at` reads of frames: in most models the features (B, C, h, w)."""

    def features_at(self, centers: Tensor, features: Tensor) -> Tensor:
        """Mean features (B, K, C) inside the windows around centers (B, K, 2), of what `features` gave."""
        return features_at(centers, features, self.config.window_std)

    def features_and_first_map(self, frames: Frames) -> FirstErrorMap:
        """Features of frames and the first layer's error map, without computing the others'."""
        self._has_no_error_maps()

    def layer_error_maps(self, frames: Frames) -> list[Tensor]:
        """Each layer's error maps of frames, one value a patch: (B, h, w) in [0, 1]."""
        self._has_no_error_maps()

    def error_maps(self, frames: Frames) -> Tensor:
        """Error maps of frames, at their size: (B, M, 84, 84) in [0, 1]."""
        self._has_no_error_maps()

    def _has_no_error_maps(self) -> NoReturn:
        raise NotImplementedError(f"{type(self).__name__} has no error maps")


def features_at(centers: Tensor, features: Tensor, window_std: float) -> Tensor:
    """Mean features inside the windows around keypoints: what an agent sees at each.

    :param centers: (B, K, 2), (y, x) in [-1, 1]
    :param features: (B, C, h, h)
    :param window_std: width of the windows
    :return: (B, K, C), float32
    """
    return means_around(features, centers, window_std)


def require_error_maps(model: KeypointModel, source: str) -> None:
    """Raise ValueError, in which the model is called `source`, unless it has error maps."""
    if not model.error_map_layers:
        raise ValueError(f"{source} is a {type(model).__name__}, which has no error maps: PermaKey has")
