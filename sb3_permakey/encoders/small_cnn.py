"""A CNN for images that is small enough to learn from few of them."""

from __future__ import annotations

import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from sb3_permakey.encoders.initialisation import initialise_layers


class SmallCNN(BaseFeaturesExtractor):
    """Two convolutions of 5x5 pixels and stride 5, with 32 and 64 filters (van Hasselt et al. 2019, appendix E).

    A twentieth of the products of SB3's NatureCNN, and a fiftieth of its weights: `CnnPolicy` takes it by
    ``policy_kwargs=dict(features_extractor_class=SmallCNN)``.

    :param observation_space: an image, channels first, at least 25 pixels each way
    :param normalized_image: whether the image is one of floats in [0, 1], as in SB3
    :raises ValueError: for other spaces and smaller images
    """

    def __init__(self, observation_space: spaces.Box, normalized_image: bool = False) -> None:
        if not is_image_space(observation_space, check_channels=False, normalized_image=normalized_image):
            raise ValueError(f"SmallCNN reads images, not {observation_space}")
        channels, height, width = observation_space.shape
        if min(height, width) < 25:
            raise ValueError(f"SmallCNN reads images of at least 25 pixels each way, not {height}x{width}")
        layers = nn.Sequential(
            nn.Conv2d(channels, 32, 5, 5), nn.ReLU(), nn.Conv2d(32, 64, 5, 5), nn.ReLU(), nn.Flatten()
        )
        with torch.no_grad():
            size = layers(torch.zeros(1, channels, height, width)).shape[1]
        super().__init__(observation_space, size)
        self.layers = layers
        initialise_layers(self.layers)

    def forward(self, observations: Tensor) -> Tensor:
        """Features (B, features_dim) of images (B, C, H, W); 576 of 84x84 pixels."""
        return self.layers(observations)
