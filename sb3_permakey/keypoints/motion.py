"""How keypoints moved: the last displacements of each, for agents that see one frame at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

JUMP = 0.3
"""Longest displacement that is a motion, in units of [-1, 1]: 12.5 pixels in an agent's step.

Objects of Atari games move by a few pixels in a step; what goes further has jumped to another object, and how far that
one lies says nothing of a speed.
"""


class KeypointMotion:
    """The last displacements of the keypoints of several environments; zeros for the steps before an episode's start.

    :param history: n, how many displacements
    """

    def __init__(self, history: int) -> None:
        self.history = history
        self._centers = np.empty((0, 0, 2), np.float32)
        self._motions = np.empty((0, 0, 2 * history), np.float32)

    def observe(
        self, centers: np.ndarray, episode_starts: Sequence[bool] | np.ndarray, rows: Sequence[int] | None = None
    ) -> np.ndarray:
        """Displacements (B, K, 2n), newest first: (dy, dx) of the last step, of the one before it, and so on.

        :param centers: (B, K, 2) in [-1, 1], each keypoint in its place of the order; those of one environment in the
            order of time
        :param episode_starts: (B,), True where the frame is an episode's first
        :param rows: (B,), which environment each frame comes from; None: frame i from environment i
        """
        environments = np.arange(len(centers)) if rows is None else np.asarray(rows)
        starts = np.asarray(episode_starts, dtype=bool)
        self._make_room(int(environments.max(initial=-1)) + 1, centers.shape[1])
        motions = np.empty((*centers.shape[:2], 2 * self.history), np.float32)
        # Different environments at once, the frames of each one after another.
        turns = np.tril(environments[:, None] == environments, -1).sum(axis=1)
        for turn in range(turns.max(initial=-1) + 1):
            now = np.flatnonzero(turns == turn)
            seen, where = centers[now], environments[now]
            steps = seen - self._centers[where]
            # Written so that a step from nowhere, which is not a number, is none either.
            steps[~(np.linalg.norm(steps, axis=-1) <= JUMP)] = 0
            moved = np.concatenate([steps, self._motions[where, :, :-2]], axis=-1)
            moved[starts[now]] = 0
            self._centers[where], self._motions[where], motions[now] = seen, moved, moved
        return motions

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the environments alone, numbered anew from 0."""
        if len(self._centers):
            self._centers, self._motions = self._centers[list(rows)], self._motions[list(rows)]

    def _make_room(self, environments: int, keypoints: int) -> None:
        """Room for so many environments; those not seen yet come from nowhere and have not moved."""
        known = len(self._centers)
        if environments > known:
            centers = np.full((environments, keypoints, 2), np.nan, np.float32)
            motions = np.zeros((environments, keypoints, 2 * self.history), np.float32)
            if known:
                centers[:known], motions[:known] = self._centers, self._motions
            self._centers, self._motions = centers, motions
