"""Features extractors of SB3's that do not fit the observations are refused with a sentence."""

from __future__ import annotations

from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN

SMALLEST_IMAGE = 36
"""Rows and columns that NatureCNN's convolutions need."""


def check_extractor(space: spaces.Space, extractor: type[BaseFeaturesExtractor], memory: str) -> None:
    """Reject SB3's extractors for observations that they fail on with an unclear message.

    :param space: the observation space
    :param extractor: any features extractor
    :param memory: "Lstm" in the names of the agent's policies, or nothing
    :raises ValueError: if it is not one for them
    """
    is_dict = isinstance(space, spaces.Dict)
    if is_dict and extractor in (FlattenExtractor, NatureCNN):
        raise ValueError(f"Dict observations need MultiInput{memory}Policy ({extractor.__name__} cannot read them).")
    if not is_dict and extractor is CombinedExtractor:
        raise ValueError(
            f"MultiInput{memory}Policy needs Dict observations, got {space}: "
            f"use Mlp{memory}Policy or Cnn{memory}Policy."
        )
    if extractor in (NatureCNN, CombinedExtractor):
        for part in space.values() if isinstance(space, spaces.Dict) else [space]:
            _require_large_images(part)


def _require_large_images(space: spaces.Space) -> None:
    """Raise ValueError for images that SB3's convolutions are too large for."""
    if isinstance(space, spaces.Box) and is_image_space(space):
        height, width = space.shape[1:] if is_image_space_channels_first(space) else space.shape[:2]
        if min(height, width) < SMALLEST_IMAGE:
            raise ValueError(
                f"Images of {height}x{width} are too small for NatureCNN (at least {SMALLEST_IMAGE}x{SMALLEST_IMAGE}): "
                "flatten them with gymnasium's FlattenObservation (and PreviousActionReward around that), or give a "
                "features_extractor_class."
            )
