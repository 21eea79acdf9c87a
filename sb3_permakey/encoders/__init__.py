"""Encoders of keypoints, and a small one of images: feature extractors for SB3's policies, sb3-contrib's and these."""

from typing import Literal

from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from sb3_permakey.encoders.attention import KeypointAttention
from sb3_permakey.encoders.cnn import KeypointCNN
from sb3_permakey.encoders.gnn import KeypointGNN
from sb3_permakey.encoders.pairs import KeypointPairs
from sb3_permakey.encoders.small_cnn import SmallCNN

__all__ = [
    "KEYPOINT_ENCODERS",
    "KeypointAttention",
    "KeypointCNN",
    "KeypointEncoder",
    "KeypointGNN",
    "KeypointPairs",
    "SmallCNN",
]

KeypointEncoder = Literal["gnn", "pairs", "attention", "cnn"]
KEYPOINT_ENCODERS: dict[KeypointEncoder, type[BaseFeaturesExtractor]] = {
    "gnn": KeypointGNN,
    "pairs": KeypointPairs,
    "attention": KeypointAttention,
    "cnn": KeypointCNN,
}
