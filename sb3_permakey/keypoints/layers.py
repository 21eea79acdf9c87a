"""The parts that the keypoint networks share: TensorFlow-padded convolutions, trunk, spatial softmax, windows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

Softmax = Literal["axes", "plane"]
IMAGE_SIZE = 84
"""Height and width of every image, in pixels."""
MOST_KEYPOINTS = (IMAGE_SIZE // 2) ** 2
"""Cells of the first layer's error map: more keypoints than these would share places."""
FARTHEST = 4.0
"""Widths of a window from its centre to the last cell that counts: exp(-4^2) is about float32's rounding."""
LOWEST = math.exp(-(FARTHEST**2))
"""What a window is there, and no cell that counts has less."""


@dataclass(frozen=True)
class TrunkShape:
    """Kernel size, number of filters and stride of each convolution of an encoder trunk."""

    kernels: tuple[int, ...]
    filters: tuple[int, ...]
    strides: tuple[int, ...]

    def map_sizes(self, image_size: int = IMAGE_SIZE) -> tuple[int, ...]:
        """Height (= width) of each layer's map under "same" padding."""
        sizes = []
        for stride in self.strides:
            image_size = -(-image_size // stride)
            sizes.append(image_size)
        return tuple(sizes)


ENCODER = TrunkShape(kernels=(4, 3, 3, 3), filters=(32, 64, 64, 128), strides=(1, 2, 2, 1))
"""The encoder of the VAE and of the PointNet (appendix A.2.1): maps of 84, 42, 21 and 21."""


def to_images(frames: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Frames as the networks want them: uint8 (B, 84, 84, C) -> float32 (B, C, 84, 84) in [0, 1], channels last.

    :param frames: an array, or a tensor that is on the device already
    :param device: where the images are wanted
    """
    if isinstance(frames, Tensor):
        return images_of(frames)
    return images_of(torch.from_numpy(np.require(frames, requirements="W")).to(device))


def images_of(frames: Tensor) -> Tensor:
    """The same of frames that are tensors already."""
    return frames.permute(0, 3, 1, 2).float().div_(255)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "same" padding along one axis: cells before and after; an odd cell goes after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def same_conv2d(images: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1) -> Tensor:
    """Convolution of (B, C, H, W) maps with TensorFlow's "same" padding."""
    kernel = weight.shape[-1]
    top, bottom = same_padding(images.shape[-2], kernel, stride)
    left, right = same_padding(images.shape[-1], kernel, stride)
    if top == bottom and left == right:
        return F.conv2d(images, weight, bias, stride, padding=(top, left))
    return F.conv2d(F.pad(images, (left, right, top, bottom)), weight, bias, stride)


class ConvBlock(nn.Module):
    """Convolution with "same" padding, BatchNorm, ReLU: (B, in, H, W) -> (B, out, ceil(H/stride), ceil(W/stride))."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, images: Tensor) -> Tensor:
        """Apply the block."""
        return self.norm(same_conv2d(images, self.conv.weight, stride=self.stride)).relu_()


class Trunk(nn.Module):
    """A stack of ConvBlocks that gives every layer's map.

    :param shape: kernels, filters and strides
    :param in_channels: channels of the images
    """

    def __init__(self, shape: TrunkShape, in_channels: int) -> None:
        super().__init__()
        channels = (in_channels, *shape.filters)
        self.blocks = nn.ModuleList(
            ConvBlock(channels[i], channels[i + 1], kernel, stride)
            for i, (kernel, stride) in enumerate(zip(shape.kernels, shape.strides, strict=True))
        )

    def forward(self, images: Tensor, depth: int | None = None) -> list[Tensor]:
        """Maps of the first `depth` layers (None: all), first layer first, of images (B, in_channels, 84, 84)."""
        maps = []
        for block in self.blocks[:depth]:
            images = block(images)
            maps.append(images)
        return maps


def axis_coordinates(size: int, device: torch.device | None = None) -> Tensor:
    """Coordinates of the cells along one axis, (size,): -1 for the first cell's centre, +1 for the last one's."""
    return torch.linspace(-1.0, 1.0, size, device=device)


def soft_argmax(maps: Tensor, softmax: Softmax = "axes") -> Tensor:
    """Keypoint coordinates: the expected place under a softmax.

    :param maps: (B, K, H, W), any real values
    :param softmax: "axes", average over one axis, softmax over the other (Jakab et al. 2018, and PermaKey), or "plane",
        one softmax over the whole map
    :return: (B, K, 2), (y, x) in [-1, 1], float32
    """
    maps = maps.float()
    if softmax == "plane":
        weights = maps.flatten(2).softmax(-1).view_as(maps)
        axes = [axis_coordinates(size, maps.device) for size in maps.shape[2:]]
        return torch.stack([(weights.sum(3) * axes[0]).sum(-1), (weights.sum(2) * axes[1]).sum(-1)], dim=-1)
    centers = []
    for kept_axis, averaged_axis in ((2, 3), (3, 2)):
        weights = torch.softmax(maps.mean(dim=averaged_axis), dim=-1)
        centers.append((weights * axis_coordinates(maps.shape[kept_axis], maps.device)).sum(-1))
    return torch.stack(centers, dim=-1)


def gaussian_windows(centers: Tensor, size: int, std: float) -> Tensor:
    """Windows exp(-distance^2 / std^2) around keypoints; distances in the coordinates of [-1, 1].

    :param centers: (B, K, 2), (y, x)
    :param size: height and width of the windows' map, in cells
    :param std: width of the windows (no factor 2 in the exponent)
    :return: (B, K, size, size), at most 1
    """
    axis = axis_coordinates(size, centers.device)
    along_y, along_x = torch.exp(-((axis - centers.unsqueeze(-1)) ** 2) / std**2).unbind(dim=2)
    return along_y.unsqueeze(-1) * along_x.unsqueeze(-2)


def window_means(features: Tensor, windows: Tensor) -> Tensor:
    """Mean of the features inside each window, weighted by the window (section 3).

    :param features: (B, C, H, W)
    :param windows: (B, K, H, W)
    :return: (B, K, C), float32
    """
    flat_windows = windows.flatten(2).float()
    weights = flat_windows / flat_windows.sum(-1, keepdim=True).clamp_min(1e-6)
    with torch.autocast(features.device.type, enabled=False):
        return weights @ features.flatten(2).float().transpose(1, 2)


def means_around(features: Tensor, centers: Tensor, std: float) -> Tensor:
    """Mean of the features inside each keypoint's window, as `window_means` of `gaussian_windows` within rounding.

    On a CPU the features are read at the windows' cells alone: those within `FARTHEST` standard widths of the centre,
    beyond which a window is lower than float32 tells from 0 beside its highest cell.

    :param features: (B, C, H, H), laid out channels last where it shall be quick
    :param centers: (B, K, 2), (y, x) in [-1, 1]
    :param std: width of the windows
    :return: (B, K, C), float32
    """
    size = features.shape[-1]
    side = 2 * math.ceil(FARTHEST * std * (size - 1) / 2) + 2
    if features.device.type != "cpu" or side >= size:
        return window_means(features, gaussian_windows(centers, size, std))
    # As arrays, for what is done to so few numbers takes tensors several times as long.
    steps, offsets = _square_of_cells(side, size)
    places = (centers.detach().numpy() + np.float32(1)) * np.float32((size - 1) / 2)
    first = np.minimum(np.maximum(np.rint(places - np.float32((side - 1) / 2)), 0), size - side)
    away = (first - places)[..., None] + steps
    along = np.exp(away * away * np.float32(-((2 / (size - 1) / std) ** 2)))
    along /= along.sum(axis=-1, keepdims=True)
    weights = along[..., 0, :, None] * along[..., 1, None, :]
    batch, keypoints, _ = centers.shape
    corners = (first[..., 0] + size * np.arange(batch)[:, None]) * size + first[..., 1]
    indices = torch.from_numpy((corners.astype(np.int64)[..., None] + offsets).reshape(-1, side**2))
    per_cell = torch.from_numpy(weights.reshape(-1, side**2))
    table = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1]).float()
    return F.embedding_bag(indices, table, mode="sum", per_sample_weights=per_cell).view(batch, keypoints, -1)


@lru_cache
def _square_of_cells(side: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of a square's cells along a side, float32, and in a map (size, size), int64, from its first cell's on."""
    steps = np.arange(side)
    return steps.astype(np.float32), (size * steps[:, None] + steps).ravel()


def resize_maps(maps: Tensor, size: int = IMAGE_SIZE) -> Tensor:
    """Bilinear resize of (B, C, H, W) maps that keeps -1 and +1 on the outermost cells' centres."""
    return F.interpolate(maps, size=(size, size), mode="bilinear", align_corners=True)
