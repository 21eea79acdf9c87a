"""Precision, recall and F1 of keypoints against true objects, while frames come in."""

from __future__ import annotations

import numpy as np

from sb3_permakey.scores import FrameObjects
from sb3_permakey.scores.measures import box_distances, pixel_places, precision, recall
from sb3_permakey.scores.scoring import ScoreConfig
from sb3_permakey.scores.statistics import f1

MARGIN_PX = ScoreConfig.margin_px
"""A keypoint within this distance of an object's box is on it, as `sb3-permakey score` has it."""


class RunningScore:
    """Pools frames, as `sb3-permakey score` pools those of its test episodes."""

    def __init__(self) -> None:
        self.frames = 0
        self.parts = np.zeros((2, 2))

    def add(self, centers: np.ndarray, objects: FrameObjects) -> None:
        """Count a frame's keypoints (K, 2), (y, x) in [-1, 1], and its objects."""
        near = box_distances(pixel_places(centers), objects.boxes) <= MARGIN_PX
        self.parts += np.array([precision(near), recall(near)], dtype=float)
        self.frames += 1

    def scores(self) -> dict[str, float]:
        """Shares of 0 to 1; 0 where nothing was counted."""
        hits, totals = self.parts.T
        shares = hits / np.maximum(totals, 1)
        return {"f1": float(f1(*shares)), "precision": float(shares[0]), "recall": float(shares[1])}
