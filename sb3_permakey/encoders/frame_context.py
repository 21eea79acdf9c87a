"""The whole frame as context of its keypoints, through a CNN that is small enough for many updates."""

from __future__ import annotations

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional as F

from sb3_permakey.encoders.initialisation import initialise_layers

PATCH_PX = 4
"""Side of the patches that the first layer sees."""


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
        self.channels_last = space.shape[-1] < space.shape[0]
        height, width, channels = space.shape if self.channels_last else (*space.shape[1:], space.shape[0])
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
