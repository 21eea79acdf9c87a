"""A small network that says directly what a trained PermaKey, its teacher, finds: keypoints in a millisecond or two.

What an LSPN says of a patch is a function of a few pixels around it, and so are the features. A few convolutions, at
half the images' size, learn that function from the teacher's outputs, without predicting a patch's hundreds of values
to subtract them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sb3_permakey.keypoints.layers import (
    IMAGE_SIZE,
    MOST_KEYPOINTS,
    ConvBlock,
    Trunk,
    TrunkShape,
    means_around,
    same_conv2d,
    to_images,
)
from sb3_permakey.keypoints.lspn import normalise_maps, stack_error_maps
from sb3_permakey.keypoints.model import FirstErrorMap, Frames, FrozenModel, KeypointModel, Keypoints, register_model
from sb3_permakey.keypoints.peaks import error_map_peaks
from sb3_permakey.keypoints.permakey import PermaKey
from sb3_permakey.keypoints.trunk import fold_block, fold_blocks
from sb3_permakey.settings import require_at_least, require_positive, require_range

MAP_SIZE = IMAGE_SIZE // 2
"""Height and width of the map that everything is read from, in cells."""
FIRST_KERNEL, KERNEL = 6, 3
"""Of the first convolution, which has a stride of 2, and of the others; two see all that a patch's error is of."""
MIN_DISTANCE_PX = 5.0
"""Least distance between two of the model's own keypoints, its highest peaks."""


@dataclass(frozen=True)
class DistilledConfig:
    """Settings of a distilled model; what its teacher decides has the names that it has there."""

    num_keypoints: int = 7
    """K, number of peaks where nothing else is said."""
    window_std: float = 0.1
    """Width of a keypoint's window exp(-distance^2 / std^2), where an image's side is 2."""
    image_channels: int = 3
    """Channels of the images."""
    layers: tuple[int, ...] = (0, 1)
    """The teacher's layers that have an error map."""
    error_map_sizes: tuple[int, ...] = (42, 21)
    """Height and width of these layers' error maps, in cells."""
    feature_channels: int = 64
    """Channels of the features."""
    filters: tuple[int, ...] = (16, 32, 32)
    """Channels of the convolutions, at least two."""
    units: int = 32
    """Units of each cell, of which errors and features are linear functions."""

    def __post_init__(self) -> None:
        for name in ("layers", "error_map_sizes", "filters"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        require_range(1, MOST_KEYPOINTS, num_keypoints=self.num_keypoints)
        require_at_least(
            1, image_channels=self.image_channels, feature_channels=self.feature_channels, units=self.units
        )
        require_positive(window_std=self.window_std)
        if len(self.filters) < 2 or min(self.filters) < 1:
            raise ValueError(f"filters must be two numbers of channels or more, not {self.filters}")
        if not self.layers or len(self.layers) != len(self.error_map_sizes):
            raise ValueError(f"layers {self.layers} must have one of error_map_sizes {self.error_map_sizes} each")
        sizes = (MAP_SIZE, MAP_SIZE // 2)
        if not set(self.error_map_sizes) <= set(sizes):
            raise ValueError(f"error_map_sizes must be of {sizes}, not {self.error_map_sizes}")

    @property
    def shape(self) -> TrunkShape:
        """The convolutions, and the one of single cells after them."""
        rest = len(self.filters) - 1
        return TrunkShape((FIRST_KERNEL, *[KERNEL] * rest, 1), (*self.filters, self.units), (2, *[1] * rest, 1))

    @classmethod
    def of_teacher(cls, teacher: KeypointModel, filters: Sequence[int], units: int) -> DistilledConfig:
        """Settings of a student that can stand in for a teacher.

        :raises ValueError: when it is no PermaKey, or one with error maps of other sizes; the message goes on after the
            teacher's name
        """
        if not isinstance(teacher, PermaKey):
            raise ValueError(f"holds a {type(teacher).__name__}; only a PermaKey can be distilled")
        config = teacher.config
        try:
            return cls(
                num_keypoints=config.num_keypoints,
                window_std=config.window_std,
                image_channels=config.image_channels,
                layers=config.layers,
                error_map_sizes=tuple(teacher.error_map_sizes),
                feature_channels=teacher.feature_channels,
                filters=tuple(filters),
                units=units,
            )
        except ValueError as error:
            raise ValueError(f"cannot be distilled: {error}") from error


class DistilledTargets(NamedTuple):
    """What a teacher says of B crops of images, h by w cells of `MAP_SIZE`'s each."""

    errors: list[Tensor]
    """Each layer's patches' errors relative to their activations: M maps (B, h_m, w_m)."""
    scales: list[Tensor]
    """The highest error of each layer's map of the whole image, M times (B,)."""
    known: Tensor
    """(B, h, w), 1 where a cell's surroundings are those of the whole image, else 0."""
    windows: Tensor
    """(B, P, h, w), windows around places, of sum 1."""
    seen: Tensor
    """bool (B, P), whether the crop has the window."""
    features: Tensor
    """(B, P, C), mean features inside the windows."""


class DistilledLosses(NamedTuple):
    """How far a student is from its teacher on one batch, scalars."""

    errors: Tensor
    """Part of the variance of the errors' roots that is not explained, mean over layers; as a part of each image's
    highest, for of an image's errors the high ones count, whatever they are in others."""
    features: Tensor
    """Part of the features' variance that is not explained."""


@register_model
class Distilled(KeypointModel):
    """Error maps and features of a PermaKey, learned from its outputs; it has no PointNet.

    The features inside a window are a linear function of the mean of its cells' units, so that they are computed at the
    keypoints alone.

    :param config: settings
    """

    kind = "distilled"
    config_class = DistilledConfig
    auto_precision = "float32"
    has_pointnet = False
    config: DistilledConfig

    def __init__(self, config: DistilledConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DistilledConfig()
        self.trunk = Trunk(config.shape, config.image_channels)
        self.to_features = ConvBlock(config.units, config.feature_channels, 1)
        self.to_roots = nn.ModuleList(roots_layer(config.units, MAP_SIZE // size) for size in config.error_map_sizes)
        self.feature_channels, self.feature_size = config.feature_channels, MAP_SIZE
        self.error_map_layers = config.layers
        self.cell_sizes = [IMAGE_SIZE // size for size in config.error_map_sizes]

    def losses(self, images: Tensor, targets: DistilledTargets) -> DistilledLosses:
        """How far it is from its teacher.

        :param images: (B, C, 2h, 2w) in [0, 1], crops of whole cells
        :param targets: the teacher's outputs
        """
        units = self.trunk(images)[-1]
        unexplained = []
        for layer, errors, scales in zip(self.to_roots, targets.errors, targets.scales, strict=True):
            known, highest = known_patches(targets.known, layer), scales.sqrt().clamp_min(1e-6)[:, None, None]
            found, wanted = patch_roots(layer, units) / highest, errors.sqrt() / highest
            unexplained.append(unexplained_share(found.unsqueeze(-1), wanted.unsqueeze(-1), known))
        # Of all windows, where those that are seen alone would have a number that a GPU's host had to wait for.
        means = torch.einsum("bchw,bphw->bpc", units.float(), targets.windows).flatten(0, 1)
        features = self.to_features.norm(self.to_features.conv(means[..., None, None])).flatten(1)
        return DistilledLosses(
            torch.stack(unexplained).mean(),
            unexplained_share(features, targets.features.flatten(0, 1), targets.seen.flatten()),
        )

    def total_loss(self, losses: DistilledLosses) -> Tensor:
        """The sum that is minimised; the features count less, for peaks are found by the errors alone."""
        return losses.errors + 0.3 * losses.features

    def stopping_loss(self, losses: DistilledLosses) -> Tensor:
        """The same sum."""
        return self.total_loss(losses)

    def keypoints(self, images: Tensor) -> Keypoints:
        """The highest peaks of the first error map."""
        units = self.trunk(images)[-1]
        error_map = scaled_errors(patch_roots(self.to_roots[0], units))
        return highest_peaks(error_map, self.cell_sizes[0], self.config, units, *fold_block(self.to_features))

    def frozen(self, precision: torch.dtype, *, streaming: bool) -> FoldedDistilled:
        """The folded network, which computes everything."""
        return FoldedDistilled(self, precision)

    def feature_blocks(self) -> list[ConvBlock]:
        """The trunk, and the layer that gives the features of each cell."""
        return [block for block in (*self.trunk.blocks, self.to_features) if isinstance(block, ConvBlock)]


class FoldedDistilled(FrozenModel):
    """A frozen distilled model, for inference mode.

    What `features_at` reads is the map of units: of the features only those at keypoints are computed.

    :param model: the trained model, which is left as it is
    :param precision: of the convolutions
    """

    config: DistilledConfig
    to_features: Tensor
    features_bias: Tensor

    def __init__(self, model: Distilled, precision: torch.dtype) -> None:
        super().__init__()
        self.config, self.cell_sizes = model.config, model.cell_sizes
        self.trunk = fold_blocks(model.trunk.blocks).to(precision)
        self.to_roots = copy.deepcopy(model.to_roots).to(precision)
        weight, bias = fold_block(model.to_features)
        self.register_buffer("to_features", weight)
        self.register_buffer("features_bias", bias)
        self.precision = precision

    def keypoints(self, frames: Frames) -> Keypoints:
        """The highest peaks of the first error map of frames uint8 (B, 84, 84, C)."""
        units, error_map, cell_size = self.features_and_first_map(frames)
        return highest_peaks(error_map, cell_size, self.config, units, self.to_features, self.features_bias)

    def features(self, frames: Frames) -> Tensor:
        """Units of frames uint8 (B, 84, 84, C): (B, units, 42, 42)."""
        images = to_images(frames, self.to_features.device).to(self.precision)
        return self.trunk.maps(images)[-1]

    def features_at(self, centers: Tensor, features: Tensor) -> Tensor:
        """Features (B, K, C) around centers (B, K, 2), of the units of `features`."""
        return features_of_units(centers, features, self.config.window_std, self.to_features, self.features_bias)

    def features_and_first_map(self, frames: Frames) -> FirstErrorMap:
        """Units of frames and the first layer's error map."""
        units = self.features(frames)
        return FirstErrorMap(units, scaled_errors(patch_roots(self.to_roots[0], units)), self.cell_sizes[0])

    def layer_error_maps(self, frames: Frames) -> list[Tensor]:
        """Each layer's error maps of frames, one value a patch: (B, h, w) in [0, 1]."""
        units = self.features(frames)
        return [scaled_errors(patch_roots(layer, units)) for layer in self.to_roots]

    def error_maps(self, frames: Frames) -> Tensor:
        """Error maps of frames, at their size: (B, M, 84, 84) in [0, 1]."""
        return stack_error_maps(self.layer_error_maps(frames), self.cell_sizes, IMAGE_SIZE)


def roots_layer(channels: int, stride: int) -> nn.Conv2d:
    """The convolution that gives a patch for each stride by stride cells; larger patches see cells around them too."""
    return nn.Conv2d(channels, 1, 1 if stride == 1 else 2 * stride, stride)


def patch_roots(layer: nn.Module, units: Tensor) -> Tensor:
    """Roots of patches' errors (B, h, w), float32; what is negative stands for 0.

    Errors span four orders of magnitude, of which the roots are easier to learn: what is dim beside the brightest patch
    counts too.
    """
    assert isinstance(layer, nn.Conv2d)
    return same_conv2d(units, layer.weight, layer.bias, layer.stride[0])[:, 0].float()


def known_patches(known: Tensor, layer: nn.Module) -> Tensor:
    """Which patches of a layer see known cells alone: 0 or 1 (B, h, w) -> bool (B, h_m, w_m)."""
    assert isinstance(layer, nn.Conv2d)
    (kernel, _), (stride, _) = layer.kernel_size, layer.stride
    return F.max_pool2d(1 - known.unsqueeze(1), kernel, stride, (kernel - stride) // 2)[:, 0] == 0


def scaled_errors(roots: Tensor) -> Tensor:
    """An error map, scaled to [0, 1], of patches' roots: (B, h, w)."""
    return normalise_maps(roots.clamp_min(0).square_())


def features_of_units(centers: Tensor, units: Tensor, window_std: float, weight: Tensor, bias: Tensor) -> Tensor:
    """Features (B, K, C), not negative, of the units' means around centers (B, K, 2), by a convolution of one cell."""
    means = means_around(units, centers, window_std)
    return F.linear(means, weight.flatten(1), bias).clamp_min_(0)


def highest_peaks(
    error_map: Tensor, cell_size: int, config: DistilledConfig, units: Tensor, weight: Tensor, bias: Tensor
) -> Keypoints:
    """The highest peaks of an error map (B, h, w), with their features and heights."""
    centers, heights = error_map_peaks(error_map, cell_size, config.num_keypoints, MIN_DISTANCE_PX)
    return Keypoints(centers, features_of_units(centers, units, config.window_std, weight, bias), heights)


def unexplained_share(found: Tensor, wanted: Tensor, counts: Tensor) -> Tensor:
    """Squared error as a part of the variance of what is wanted, of the vectors that count: a scalar.

    :param found: (..., C)
    :param wanted: (..., C)
    :param counts: bool (...), which of the vectors count
    """
    weights = counts.unsqueeze(-1).float()
    weights = weights / weights.sum().clamp_min(1)
    wanted = wanted.float()
    middle = (weights * wanted).sum(dim=tuple(range(counts.dim())))
    variance = (weights * (wanted - middle).square()).sum()
    return (weights * (found.float() - wanted).square()).sum() / variance.clamp_min(1e-12)
