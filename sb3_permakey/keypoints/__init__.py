"""Pixels to keypoints: plain torch, knows nothing of reinforcement learning."""

from sb3_permakey.keypoints.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from sb3_permakey.keypoints.detector import KeypointDetector
from sb3_permakey.keypoints.model import KeypointModel, Keypoints
from sb3_permakey.keypoints.permakey import PermaKey, PermaKeyConfig, PermaKeyLosses

__all__ = [
    "CheckpointError",
    "KeypointDetector",
    "KeypointModel",
    "Keypoints",
    "PermaKey",
    "PermaKeyConfig",
    "PermaKeyLosses",
    "load_checkpoint",
    "save_checkpoint",
]
