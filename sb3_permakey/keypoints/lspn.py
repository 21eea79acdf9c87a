"""The local spatial prediction network: each patch of features from its eight neighbours (section 2, equation 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HIDDEN_UNITS = (512, 256)
"""Units of the MLP's hidden layers (appendix A.2.1)."""

ACTIVATION_FLOOR = 1e-3
"""Added to the centre patch's mean activation before the error is divided by it."""


def to_patches(features: Tensor, patch_size: int) -> Tensor:
    """Non-overlapping patches as pixels: (B, C, H, W) -> (B, C p p, ceil(H/p), ceil(W/p)).

    Maps whose sides p does not divide are zero-padded after their last row and column.
    """
    pad_y, pad_x = (-features.shape[-2] % patch_size), (-features.shape[-1] % patch_size)
    if pad_y or pad_x:
        features = F.pad(features, (0, pad_x, 0, pad_y))
    return F.pixel_unshuffle(features, patch_size)


class LSPN(nn.Module):
    """Predicts each patch from its eight neighbours, without gathering them.

    A patch is a pixel of p*p*C channels, so that the first layer of the MLP on the eight concatenated neighbours is a
    3x3 convolution whose centre tap is zero, and the other layers apply to each pixel alone. Zero padding makes every
    patch a centre.

    :param channels: C, channels of the feature map
    :param patch_size: p, side of a patch in cells of the map
    """

    def __init__(self, channels: int, patch_size: int = 2) -> None:
        super().__init__()
        self.patch_size = patch_size
        patch_values = channels * patch_size**2
        first, second = HIDDEN_UNITS
        self.neighbours = nn.Conv2d(patch_values, first, kernel_size=3, padding=1, bias=False)
        taps = torch.ones(1, 1, 3, 3)
        taps[..., 1, 1] = 0
        self.register_buffer("neighbour_taps", taps, persistent=False)
        with torch.no_grad():
            self.neighbours.weight.mul_(taps)
        self.head = nn.Sequential(
            nn.BatchNorm1d(first),
            nn.ReLU(inplace=True),
            nn.Linear(first, second, bias=False),
            nn.BatchNorm1d(second),
            nn.ReLU(inplace=True),
            nn.Linear(second, patch_values),
        )

    def forward(self, patches: Tensor) -> Tensor:
        """Predicted patches (B, C p p, h, w) from the patches themselves, same shape."""
        weight = self.neighbours.weight * self.get_buffer("neighbour_taps").to(self.neighbours.weight.dtype)
        hidden = F.conv2d(patches, weight, padding=1).permute(0, 2, 3, 1)
        # The rest of the MLP takes each patch as a row.
        return self.head(hidden.flatten(0, 2)).unflatten(0, hidden.shape[:3]).permute(0, 3, 1, 2)


def patch_errors(prediction: Tensor, patches: Tensor) -> Tensor:
    """Mean squared error of each patch: (B, C p p, h, w) twice -> (B, h, w)."""
    return (prediction - patches).square().mean(dim=1, dtype=torch.float32)


def lspn_loss(errors: Tensor) -> Tensor:
    """Equation 2, as the mean over images, patches and channels, of the errors (B, h, w) of `patch_errors`."""
    return errors.mean()


def error_map(errors: Tensor, patches: Tensor) -> Tensor:
    """A layer's error map: each patch's error relative to its mean activation.

    :param errors: (B, h, w) of `patch_errors`
    :param patches: (B, C p p, h, w), activations after ReLU
    :return: (B, h, w)
    """
    return errors / (patches.mean(dim=1, dtype=torch.float32) + ACTIVATION_FLOOR)


def normalise_maps(maps: Tensor) -> Tensor:
    """Scale each map of each image to [0, 1]; a constant map becomes zero.

    :param maps: (..., h, w)
    :return: the same shape
    """
    low, high = torch.aminmax(maps.flatten(-2), dim=-1, keepdim=True)
    span = (high - low).clamp_min(torch.finfo(maps.dtype).tiny)
    return (maps - low.unsqueeze(-1)) / span.unsqueeze(-1)


def stack_error_maps(maps: list[Tensor], cell_sizes: list[int], image_size: int) -> Tensor:
    """Resize each layer's map to the image by repeating its cells, and stack the layers.

    :param maps: M maps (B, h_m, w_m)
    :param cell_sizes: side of each map's cells in the image, in pixels
    :param image_size: height and width of the image, in pixels
    :return: (B, M, image_size, image_size)
    """
    resized = [
        F.interpolate(layer.unsqueeze(1), scale_factor=cell, mode="nearest")[..., :image_size, :image_size]
        for layer, cell in zip(maps, cell_sizes, strict=True)
    ]
    return torch.cat(resized, dim=1)
