"""A reward for keypoints that are where none of their kind has been, by which an agent explores."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, unwrap_vec_normalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_permakey.envs.wrapping import require_vectorised

NOVELTY = "novelty"
"""Key of the infos under which a step's bonus is told."""


class VecKeypointNovelty(VecEnvWrapper):
    """Adds to the rewards a bonus for keypoints where none of their kind has been.

    A keypoint's kind is told by the signs of some random projections of its features, less their mean over the first
    steps, and its place is a cell of the frame. The first time in an episode that a keypoint of a kind is in a
    cell, the bonus is scale / sqrt(n), where n counts the episodes in which this was so; those of all keypoints add
    up. Counts of hashed states are those of Tang et al. 2017 (https://arxiv.org/abs/1611.04717), once an episode as
    in Badia et al. 2020 (https://arxiv.org/abs/2002.06038); that each keypoint is counted by itself makes a state
    new by a single object in a new place, whatever the others do.

    It is for learning alone: evaluate without it. The bonus of each step is in its infos under "novelty"; a Monitor
    below counts the environments' own rewards. A `VecNormalize` goes around it.

    :param venv: environments with the observations of `VecPermaKeyObservation`
    :param scale: of the bonus; rewards clipped to 1 go with .1
    :param seed: of the projections
    :param cells: the frame has so many rows and columns of cells
    :param bits: projections, so that there are 2^bits kinds
    :param warm_up: steps without bonus, over which the features' mean is taken
    :raises ValueError: when the observations are no keypoints, VecNormalize is below, or a number is out of its range
    """

    def __init__(
        self, venv: VecEnv, scale: float = 0.1, seed: int = 0, cells: int = 10, bits: int = 4, warm_up: int = 500
    ) -> None:
        require_vectorised(venv, "VecKeypointNovelty", "VecPermaKeyObservation")
        space = venv.observation_space
        if not isinstance(space, spaces.Dict) or not {"keypoints", "features"} <= set(space.spaces):
            raise ValueError(f"VecKeypointNovelty needs the observations of VecPermaKeyObservation, not {space}.")
        if unwrap_vec_normalize(venv) is not None:
            raise ValueError("VecKeypointNovelty belongs below VecNormalize, whose rewards replay would not see.")
        if not 0 < scale < np.inf:
            raise ValueError(f"scale must be a number above 0, got {scale}.")
        if cells < 1 or not 1 <= bits <= 16 or warm_up < 1:
            raise ValueError(f"cells and warm_up must be 1 or more and bits from 1 to 16, got {cells, warm_up, bits}.")
        super().__init__(venv)
        features = space["features"].shape
        assert features is not None
        self.scale, self.cells, self.warm_up = scale, cells, warm_up
        self._projections = np.random.default_rng(seed).normal(size=(features[-1], bits))
        self._sum, self._steps = np.zeros(features[-1]), 0
        # Episodes in which a keypoint of a kind was in a row and column, and whether one was in this episode.
        self._counts = np.zeros((2**bits, cells, cells), dtype=np.int64)
        self._seen = np.zeros((venv.num_envs, 2**bits, cells, cells), dtype=bool)

    def reset(self) -> VecEnvObs:
        """Reset all environments, in whose new episodes nothing has been anywhere."""
        self._seen[:] = False
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        """Finish the step, with the bonus in the rewards and in the infos."""
        observations, rewards, dones, infos = self.venv.step_wait()
        assert isinstance(observations, dict)
        begins = np.asarray(dones, dtype=bool)
        self._seen[begins] = False
        bonus = self._bonus(observations["keypoints"], observations["features"], begins)
        for info, one in zip(infos, bonus, strict=True):
            info[NOVELTY] = float(one)
        return observations, (rewards + bonus).astype(np.float32), dones, infos

    def _bonus(self, positions: np.ndarray, features: np.ndarray, begins: np.ndarray) -> np.ndarray:
        """The bonus of a step (N,).

        :param positions: (N, K, 2), in [-1, 1]
        :param features: (N, K, C)
        :param begins: (N,), where an episode's first observation is no doing of the agent
        """
        bonus = np.zeros(len(positions))
        self._steps += 1
        if self._steps <= self.warm_up:
            self._sum += features.mean(axis=(0, 1))
            return bonus
        signs = (features - self._sum / self.warm_up) @ self._projections > 0
        kinds = signs @ (1 << np.arange(signs.shape[-1]))
        cells = np.clip(((positions + 1) / 2 * self.cells).astype(int), 0, self.cells - 1)
        for index in np.flatnonzero(~begins):
            places = np.unique(np.column_stack([kinds[index], cells[index]]), axis=0)
            new = tuple(places[~self._seen[index][tuple(places.T)]].T)
            self._counts[new] += 1
            self._seen[index][new] = True
            bonus[index] = self.scale * (self._counts[new] ** -0.5).sum()
        return bonus

    def contents(self) -> dict[str, np.ndarray]:
        """What has been learned of the environments, for a run that is to go on: `restore`."""
        steps = np.array(self._steps)
        return {"projections": self._projections, "counts": self._counts, "sum": self._sum, "steps": steps}

    def restore(self, contents: dict[str, np.ndarray]) -> None:
        """Go on with the contents of another, with new episodes.

        :raises ValueError: when it had other features, or another number of cells or bits
        """
        for name, own in (("projections", self._projections), ("counts", self._counts)):
            if contents[name].shape != own.shape:
                raise ValueError(f"{name} of VecKeypointNovelty are {contents[name].shape}, needed are {own.shape}.")
        self._projections[:], self._counts[:], self._sum[:] = (contents[n] for n in ("projections", "counts", "sum"))
        self._steps = int(contents["steps"])
        self._seen[:] = False
