"""A keypoint model as a stranger adds one: keypoints where a small autoencoder's features are high."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sb3_permakey.keypoints import FrozenModel, KeypointModel, Keypoints, register_model
from sb3_permakey.keypoints.layers import Trunk, TrunkShape, soft_argmax, to_images
from sb3_permakey.keypoints.model import features_at
from sb3_permakey.pretraining.config import METHODS, Method, Optimisation
from sb3_permakey.pretraining.stages import Stage, StageParts, StagePlan, stages_of

SHAPE = TrunkShape(kernels=(3,), filters=(8,), strides=(2,))


@dataclass(frozen=True)
class ColourConfig:
    """What all methods have."""

    num_keypoints: int = 2
    window_std: float = 0.1
    image_channels: int = 3


class ColourLosses(NamedTuple):
    """The losses of a batch."""

    reconstruction: Tensor


@register_model
class ColourModel(KeypointModel):
    """One convolution, the keypoints of its maps, and a decoder that only training needs."""

    kind = "colour"
    config_class = ColourConfig
    training_only = ("decoder.",)

    def __init__(self, config: ColourConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = Trunk(SHAPE, config.image_channels)
        self.to_keypoints = nn.Conv2d(SHAPE.filters[-1], config.num_keypoints, 1)
        self.decoder = nn.ConvTranspose2d(SHAPE.filters[-1], config.image_channels, 2, stride=2)
        self.feature_channels, self.feature_size = SHAPE.filters[-1], SHAPE.map_sizes()[-1]

    def keypoints(self, images: Tensor) -> Keypoints:
        """Soft maxima of the maps."""
        features = self.trunk(images)[-1]
        centers = soft_argmax(self.to_keypoints(features))
        return Keypoints(centers, features_at(centers, features, self.config.window_std))

    def frozen(self, precision: torch.dtype, *, streaming: bool) -> FrozenModel:
        """A copy, whatever the precision."""
        return FrozenColourModel(copy.deepcopy(self))

    def feature_blocks(self) -> list[nn.Module]:
        """The one block."""
        return list(self.trunk.blocks)

    def losses(self, images: Tensor) -> ColourLosses:
        """How far the decoded image is from the image."""
        return ColourLosses((self.decoder(self.trunk(images)[-1]) - images).square().mean())

    def total_loss(self, losses: ColourLosses) -> Tensor:
        """The reconstruction."""
        return losses.reconstruction

    stopping_loss = total_loss


class FrozenColourModel(FrozenModel):
    """The model on frames."""

    def __init__(self, model: ColourModel) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def keypoints(self, frames: np.ndarray) -> Keypoints:
        """The model's own."""
        return self.model.keypoints(to_images(frames, torch.device("cpu")))

    def features(self, frames: np.ndarray) -> Tensor:
        """The map of the one layer."""
        return self.model.trunk(to_images(frames, torch.device("cpu")))[-1]


class ColourStage(Stage):
    """The model on images."""

    name = "colours"

    def inputs(self, split: str, indices: np.ndarray, seed: tuple[int, ...] | None) -> tuple[Tensor]:
        """Images."""
        return (self.reader.images(split, indices),)

    def compute(self, images: Tensor) -> ColourLosses:
        """Losses of the images."""
        return self.model.losses(images)


METHODS["colour"] = Method(Optimisation(4, 1e-2, 1.0, 1000, 5))


@stages_of.register
def _(model: ColourModel, parts: StageParts) -> list[StagePlan]:
    config = parts.config
    rate = config.optimisation.learning_rate
    return [StagePlan(lambda: ColourStage(model, parts.reader, parts.precision, rate), config.max_steps)]
