"""Pixels to keypoints: plain torch, knows nothing of reinforcement learning."""

from sb3_permakey.keypoints.checkpoint import (
    CheckpointError,
    checkpoint_metadata,
    load_checkpoint,
    model_fingerprint,
    require_trainable,
    save_checkpoint,
    save_for_detection,
    warn_of_another_game,
)
from sb3_permakey.keypoints.detector import KeypointDetector
from sb3_permakey.keypoints.distilled import Distilled, DistilledConfig, DistilledLosses, DistilledTargets
from sb3_permakey.keypoints.model import MODELS, FrozenModel, KeypointModel, Keypoints, register_model
from sb3_permakey.keypoints.permakey import PermaKey, PermaKeyConfig, PermaKeyLosses
from sb3_permakey.keypoints.readouts import READOUTS, Readout, ReadoutConfig, ReadoutName, register_readout
from sb3_permakey.keypoints.recorded import KeypointFileError, RecordedKeypoints, read_keypoints, write_keypoints
from sb3_permakey.keypoints.shipped import ShippedCheckpoint, checkpoint_exists, checkpoint_table, shipped_checkpoints
from sb3_permakey.keypoints.transporter import Transporter, TransporterConfig, TransporterLosses

__all__ = [
    "MODELS",
    "READOUTS",
    "CheckpointError",
    "Distilled",
    "DistilledConfig",
    "DistilledLosses",
    "DistilledTargets",
    "FrozenModel",
    "KeypointDetector",
    "KeypointFileError",
    "KeypointModel",
    "Keypoints",
    "PermaKey",
    "PermaKeyConfig",
    "PermaKeyLosses",
    "Readout",
    "ReadoutConfig",
    "ReadoutName",
    "RecordedKeypoints",
    "ShippedCheckpoint",
    "Transporter",
    "TransporterConfig",
    "TransporterLosses",
    "checkpoint_exists",
    "checkpoint_metadata",
    "checkpoint_table",
    "load_checkpoint",
    "model_fingerprint",
    "register_model",
    "read_keypoints",
    "register_readout",
    "require_trainable",
    "save_checkpoint",
    "save_for_detection",
    "shipped_checkpoints",
    "warn_of_another_game",
    "write_keypoints",
]
