"""Spaces of keypoints without an environment, and observations of them."""

import numpy as np
import torch
from gymnasium import spaces


def keypoint_space(count: int, channels: int = 6, *, confidence: bool = False) -> spaces.Dict:
    entries = {
        "keypoints": spaces.Box(-1, 1, (count, 2), np.float32),
        "features": spaces.Box(0, np.inf, (count, channels), np.float32),
    }
    if confidence:
        entries["confidence"] = spaces.Box(0, 1, (count,), np.float32)
    return spaces.Dict(entries)


def observations_of(
    count: int, batch: int = 3, channels: int = 6, *, confidence: bool = False
) -> dict[str, torch.Tensor]:
    observations = {"keypoints": torch.rand(batch, count, 2), "features": torch.rand(batch, count, channels)}
    return {**observations, "confidence": torch.rand(batch, count)} if confidence else observations
