"""What the encoders of keypoints share: their check of the space, layers, and positions as waves."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from gymnasium import spaces
from torch import Tensor, nn

MOTION_SCALE = 10.0
"""Objects move by some hundredths of the image in a step; so scaled, displacements are as large as positions."""


def require_keypoints(space: spaces.Space, *, image: bool = False) -> spaces.Dict:
    """The space as a Dict of keypoints.

    :param space: an observation space
    :param image: True when the pixels are needed too
    :raises ValueError: when the space has no keypoints, those of several frames, or no image where it is needed
    """
    if not isinstance(space, spaces.Dict) or not {"keypoints", "features"} <= set(space.spaces):
        raise ValueError(
            "keypoint encoders need observations with keypoints and features: wrap the environment with "
            f"PermaKeyObservation first (it has {space})"
        )
    places, features = (space[name].shape or () for name in ("keypoints", "features"))
    if len(places) != 2 or places[-1] != 2 or len(features) != 2 or places[0] != features[0]:
        raise ValueError(
            f"keypoint encoders read one frame's keypoints (K, 2) and features (K, C), not {places} and {features}: "
            "leave VecFrameStack out; PermaKeyObservation(..., history=n) gives motion, and recurrent agents remember"
        )
    if image and "image" not in space.spaces:
        raise ValueError("the encoder needs the pixels too: wrap with PermaKeyObservation(..., keep_image=True)")
    return space


def rest_size_of(keypoints: spaces.Dict) -> int:
    """How many numbers `rest_of` observations of this space has for a keypoint."""
    motion = keypoints.spaces.get("motion")
    return ("confidence" in keypoints.spaces) + (0 if motion is None else motion.shape[-1])  # type: ignore[index]


def rest_of(observations: dict[str, Tensor]) -> list[Tensor]:
    """What observations tell of keypoints beside place and features.

    :param observations: perhaps with "confidence" (B, K) and "motion" (B, K, 2n)
    :return: of these what there is, (B, K, 1) and (B, K, 2n), displacements scaled
    """
    rest = [observations["confidence"].unsqueeze(-1)] if "confidence" in observations else []
    return [*rest, observations["motion"] * MOTION_SCALE] if "motion" in observations else rest


def mlp(in_features: int, units: int) -> nn.Sequential:
    """The paper's building block: two layers of ReLU units (appendix A.2.3)."""
    return nn.Sequential(nn.Linear(in_features, units), nn.ReLU(), nn.Linear(units, units), nn.ReLU())


def with_waves(positions: Tensor, frequencies: int) -> Tensor:
    """Positions beside their sines and cosines with `frequencies` frequencies pi, 2 pi, 4 pi, ...

    :param positions: (..., D) in [-1, 1]
    :return: (..., D + 2 D frequencies)
    """
    if not frequencies:
        return positions
    angles = (positions.unsqueeze(-1) * _factors(frequencies, positions.device)).flatten(-2)
    return torch.cat([positions, angles.sin(), angles.cos()], dim=-1)


@lru_cache(maxsize=32)
def _factors(frequencies: int, device: torch.device) -> Tensor:
    """Frequencies (frequencies,), made once."""
    return math.pi * 2.0 ** torch.arange(frequencies, device=device)
