"""A readout as a stranger adds one: the brightest pixel of each of K horizontal bands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sb3_permakey.keypoints import FrozenModel, Keypoints, Readout, ReadoutConfig, register_readout


@dataclass(frozen=True)
class BrightestConfig(ReadoutConfig):
    """With a setting of its own."""

    channel: int = 0
    """Of the image."""


@register_readout
class BrightestReadout(Readout):
    """It needs nothing of the model but its features."""

    name = "brightest"
    label = "brightest"
    config_class = BrightestConfig
    own_settings = ("channel",)
    gives_confidence = True

    def read(self, network: FrozenModel, frames: np.ndarray) -> Keypoints:
        """Brightest pixels, with their brightness as confidence."""
        count = self.config.num_keypoints
        bands = torch.from_numpy(frames[..., self.config.channel].astype(np.float32) / 255).flatten(1)
        heights, cells = bands.unflatten(1, (count, -1)).max(dim=2)
        cells = cells + torch.arange(count) * bands.shape[1] // count
        centers = torch.stack([cells // 84, cells % 84], dim=-1) / 83 * 2 - 1
        return Keypoints(centers, network.features_at(centers, network.features(frames)), heights)
