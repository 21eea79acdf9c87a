"""Keypoint quality without reinforcement learning: keypoints against the objects that a game shows."""

from sb3_permakey.scores.ground_truth import FrameObjects, GroundTruth, GroundTruthError
from sb3_permakey.scores.labelled import LabelledFrames, labelled_frames
from sb3_permakey.scores.scoring import ScoreConfig, detect_pairs, score
from sb3_permakey.scores.statistics import (
    Estimate,
    grid_points,
    random_points,
    score_categories,
    score_keypoints,
    score_stability,
)
from sb3_permakey.scores.tables import keypoint_score_table

__all__ = [
    "Estimate",
    "FrameObjects",
    "GroundTruth",
    "GroundTruthError",
    "LabelledFrames",
    "ScoreConfig",
    "detect_pairs",
    "grid_points",
    "keypoint_score_table",
    "labelled_frames",
    "random_points",
    "score",
    "score_categories",
    "score_keypoints",
    "score_stability",
]
