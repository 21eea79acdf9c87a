"""The spatial feature embedding: a convolutional variational auto-encoder (section 2, equation 1)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sb3_permakey.keypoints.layers import ENCODER, ConvBlock, Trunk, TrunkShape, same_conv2d

LIKELIHOOD_VARIANCE = 0.1
"""Variance of the decoder's Gaussian likelihood p(x|z)."""


class VAEOutput(NamedTuple):
    """What one pass through the VAE gives; B images of C channels, D latents."""

    feature_maps: list[Tensor]
    """The encoder's maps, one per layer."""
    latent_mean: Tensor
    """(B, D)."""
    latent_scale: Tensor
    """(B, D), standard deviations, positive."""
    reconstruction: Tensor
    """(B, C, 84, 84) in [0, 1]."""


def reconstruction_loss(reconstruction: Tensor, images: Tensor) -> Tensor:
    """-log p(x|z) of equation 1 up to its constant: squared error summed over pixels, mean over the batch.

    :param reconstruction: (B, C, H, W)
    :param images: (B, C, H, W)
    :return: scalar, nats per image
    """
    squared_error = (reconstruction.float() - images.float()).square()
    return squared_error.sum() / (2 * LIKELIHOOD_VARIANCE * images.shape[0])


def kl_divergence(mean: Tensor, scale: Tensor) -> Tensor:
    """KL[N(mean, scale^2) || N(0, I)] of equation 1, summed over latents, mean over the batch.

    :param mean: (B, D)
    :param scale: (B, D), standard deviations
    :return: scalar, nats per image
    """
    mean, scale = mean.float(), scale.float()
    return 0.5 * (mean.square() + scale.square() - 1 - 2 * scale.log()).sum() / mean.shape[0]


class VAE(nn.Module):
    """Convolutional VAE on 84x84 images; the encoder's early maps are the spatial features.

    :param image_channels: channels of the images
    :param latent_dim: dimensions of the latent Gaussian
    """

    def __init__(self, image_channels: int = 3, latent_dim: int = 32) -> None:
        super().__init__()
        self.encoder = Trunk(ENCODER, image_channels)
        self.map_size = ENCODER.map_sizes()[-1]
        map_values = ENCODER.filters[-1] * self.map_size**2
        self.to_latent = nn.Linear(map_values, 2 * latent_dim)
        self.from_latent = nn.Linear(latent_dim, map_values)
        self.decoder = Decoder(ENCODER, image_channels)

    def forward(self, images: Tensor, noise: Tensor | None = None) -> VAEOutput:
        """Encode, draw a latent, decode.

        :param images: (B, C, 84, 84) in [0, 1]
        :param noise: (B, D), standard normal; None decodes the latent's mean
        """
        feature_maps = self.encoder(images)
        mean, pre_scale = self.to_latent(feature_maps[-1].flatten(1)).float().chunk(2, dim=-1)
        scale = F.softplus(pre_scale) + 1e-6
        latent = mean if noise is None else mean + scale * noise
        maps = torch.relu(self.from_latent(latent)).unflatten(1, (-1, self.map_size, self.map_size))
        return VAEOutput(feature_maps, mean, scale, self.decoder(maps.to(memory_format=torch.channels_last)))


class Decoder(nn.Module):
    """A trunk mirrored: maps of its last layer -> images (B, C, 84, 84) in [0, 1], by a sigmoid.

    Where a layer has a stride, its mirror's output is upsampled bilinearly. The paper does not say whether to upsample
    before or after the convolution; after it, a training step of the VAE is 8 % shorter.

    :param shape: of the trunk, whose first layer has no stride
    :param image_channels: channels of the images
    """

    def __init__(self, shape: TrunkShape, image_channels: int) -> None:
        super().__init__()
        mirrored = list(zip(shape.kernels, shape.filters, shape.strides, strict=True))[::-1]
        outputs = [filters for _, filters, _ in mirrored[1:]]
        self.blocks = nn.ModuleList(
            ConvBlock(filters, output, kernel)
            for (kernel, filters, _), output in zip(mirrored[:-1], outputs, strict=True)
        )
        self.upsampling = [stride for _, _, stride in mirrored[:-1]]
        self.to_image = nn.Conv2d(shape.filters[0], image_channels, shape.kernels[0])

    def forward(self, maps: Tensor) -> Tensor:
        """Decode the maps to images."""
        for factor, block in zip(self.upsampling, self.blocks, strict=True):
            maps = block(maps)
            if factor > 1:
                maps = F.interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=False)
        return torch.sigmoid(same_conv2d(maps, self.to_image.weight, self.to_image.bias).float())
