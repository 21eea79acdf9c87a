"""The frame beside its keypoints, through layers that are small enough for many updates.

The whole of it by a CNN, or around each keypoint by a glimpse (Mnih et al. 2014, https://arxiv.org/abs/1406.6247).
"""

from __future__ import annotations

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F

from sb3_permakey.encoders.initialisation import initialise_layers

PATCH_PX = 4
"""Side of the patches that the first layer sees."""
GLIMPSE = 7
"""Patches across a glimpse, of which the middle one lies on the keypoint: 12 pixels on each side of it and a patch."""


class FrameContext(nn.Module):
    """A frame in patches of 4x4 pixels, then two convolutions of stride 2, normalised.

    A ninth of the products of SB3's NatureCNN, whose first layer sees every place four times.

    :param space: frames uint8, channels first or last
    :param filters: of the patches' layer; the other two have twice as many
    :param shift_px: while learning each frame is shifted by up to so many pixels in each direction
    :raises ValueError: for a shift that is negative
    """

    def __init__(self, space: spaces.Box, filters: int = 16, shift_px: int = 0) -> None:
        super().__init__()
        if shift_px < 0:
            raise ValueError(f"shift_px must be 0 or more, not {shift_px}")
        self.shift_px = shift_px
        self.channels_last, (channels, height, width) = channels_first(space)
        self.layers = nn.Sequential(
            nn.Conv2d(channels, filters, PATCH_PX, PATCH_PX),
            nn.ReLU(),
            nn.Conv2d(filters, 2 * filters, 3, 2),
            nn.ReLU(),
            nn.Conv2d(2 * filters, 2 * filters, 3, 2),
            nn.ReLU(),
            nn.Flatten(),
        )
        across, down = (((size // PATCH_PX - 1) // 2 - 1) // 2 for size in (width, height))
        self.features_dim = 2 * filters * across * down
        self.normalise = nn.LayerNorm(self.features_dim)
        initialise_layers(self.layers)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, features_dim) of floats in [0, 1]."""
        images = images.permute(0, 3, 1, 2) if self.channels_last else images
        if self.training and self.shift_px:
            images = shifted(images, self.shift_px)
        return self.normalise(self.layers(images))


class Glimpses(nn.Module):
    """What lies around each keypoint: the frame in patches of 4x4 pixels, of these 7x7 with the keypoint in the middle.

    A glimpse moves with its keypoint by parts of a patch, between which it is interpolated; beyond the edge there is
    nothing.

    :param space: frames uint8, channels first or last
    :param units: numbers that a glimpse gives
    :param filters: of the patches' layer
    """

    around: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, space: spaces.Box, units: int, filters: int = 16) -> None:
        super().__init__()
        self.channels_last, (channels, height, width) = channels_first(space)
        self.patches = nn.Conv2d(channels, filters, PATCH_PX, PATCH_PX)
        self.read = nn.Linear(filters * GLIMPSE**2, units)
        self.normalise = nn.LayerNorm(units)
        steps = torch.arange(GLIMPSE) - GLIMPSE // 2
        across, down = torch.meshgrid(steps, steps, indexing="xy")
        # In grid_sample's units the middles of the first and last patch lie at -1 and 1.
        counts = torch.tensor([width // PATCH_PX, height // PATCH_PX])
        self.register_buffer("around", torch.stack([across, down], dim=-1) * 2 / (counts - 1), persistent=False)
        sides = torch.tensor([width, height])
        # A keypoint at -1 or 1 lies in the middle of the first or last pixel.
        self.register_buffer("scale", (sides - 1) / (PATCH_PX * (counts - 1)), persistent=False)
        shift = ((sides - 1) / 2 - (PATCH_PX - 1) / 2) * 2 / (PATCH_PX * (counts - 1)) - 1
        self.register_buffer("shift", shift, persistent=False)
        initialise_layers(self)

    def forward(self, images: Tensor, keypoints: Tensor) -> Tensor:
        """Glimpses (B, K, units) of floats in [0, 1], around keypoints (B, K, 2), (y, x) in [-1, 1]."""
        images = images.permute(0, 3, 1, 2) if self.channels_last else images
        patches = F.relu(self.patches(images))
        places = (keypoints.flip(-1) * self.scale + self.shift)[:, :, None, None] + self.around
        # All keypoints of a frame as one picture of K * 7 rows.
        seen = F.grid_sample(patches, places.flatten(1, 2), align_corners=True)
        # (B, filters, K, 7, 7) to (B, K, numbers).
        apart = seen.unflatten(2, (-1, GLIMPSE)).transpose(1, 2).flatten(2)
        return F.relu(self.normalise(self.read(apart)))


def channels_first(space: spaces.Box) -> tuple[bool, tuple[int, int, int]]:
    """Whether a frame's channels come last, and its shape (C, H, W)."""
    first, second, third = space.shape
    return (True, (third, first, second)) if third < first else (False, (first, second, third))


def shifted(images: Tensor, most_px: int) -> Tensor:
    """Each image shifted by up to so many pixels, down or up and right or left, its edges repeated.

    Kostrikov et al. 2020, https://arxiv.org/abs/2004.13649, section 4.

    :param images: (B, C, H, W)
    :param most_px: longest shift in each direction
    """
    height, width = images.shape[-2:]
    padded = F.pad(images, (most_px,) * 4, mode="replicate")
    # On the device, which the host does not wait for.
    tops, lefts = torch.randint(2 * most_px + 1, (2, len(images), 1), device=images.device)
    rows = tops + torch.arange(height, device=images.device)
    columns = lefts + torch.arange(width, device=images.device)
    every = torch.arange(len(images), device=images.device)
    return padded.permute(0, 2, 3, 1)[every[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
