"""Observations of the controls in `benchmarks.atari100k`: the same features at other places, and gray frames.

"Is it the keypoints?" The controls take the checkpoint's features as a keypoint agent does, means inside Gaussian
windows, so that only where the windows are differs: on a fixed grid, anywhere at random anew in every frame, or on the
true objects. An object that is not shown has its point in the upper left corner, features of zero and, where points
come with one, a confidence of 0; all other points have a confidence of 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_permakey.envs.keypoints import KeypointSpace
from sb3_permakey.keypoints import KeypointDetector, ReadoutConfig
from sb3_permakey.keypoints.device import place, resolve_device
from sb3_permakey.keypoints.layers import IMAGE_SIZE, gaussian_windows, window_means
from sb3_permakey.keypoints.trunk import FrozenTrunk
from sb3_permakey.play.saved_agents import GRAY_WEIGHTS
from sb3_permakey.scores import FrameObjects, GroundTruth, GroundTruthError
from sb3_permakey.scores.ground_truth import box_centers
from sb3_permakey.scores.statistics import grid_points

POINTS = "points"
"""Key of the info: float32 (K, 3), each point's (y, x) in [-1, 1] and 1 where there is something, else 0."""
NOWHERE = (-1.0, -1.0, 0.0)


class Placer(Protocol):
    """Says where the points of a frame are."""

    def reset(self) -> None:
        """An episode begins."""

    def place(self) -> np.ndarray:
        """The points of the newest frame, (K, 3); called once for each."""


class GridPoints:
    """Points of a fixed grid.

    :param count: K
    """

    def __init__(self, count: int) -> None:
        self.points = np.concatenate([grid_points(count), np.ones((count, 1))], axis=1)

    def reset(self) -> None:
        """Nothing to forget."""

    def place(self) -> np.ndarray:
        """The grid."""
        return self.points


class RandomPoints:
    """Points uniform in the frame, drawn anew for each.

    :param count: K
    :param seed: of the draws
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.generator = count, np.random.default_rng(seed)

    def reset(self) -> None:
        """Nothing to forget."""

    def place(self) -> np.ndarray:
        """Other points every time."""
        return np.concatenate([self.generator.uniform(-1, 1, (self.count, 2)), np.ones((self.count, 1))], axis=1)


class ObjectSlots:
    """Gives objects their places among K points, which they keep while an episode lasts.

    New objects come in the order of their names, displays last, into slots that nothing has had, then into those whose
    object has gone, then into those of displays, which give way. What finds no slot is left out.

    :param count: K
    """

    def __init__(self, count: int) -> None:
        self.holders: list[str | None] = [None] * count

    def assign(self, objects: FrameObjects) -> list[int | None]:
        """For each slot the index of its object in the frame, None where it is not shown."""
        indices = {identity: index for index, identity in enumerate(objects.identities)}
        for identity in sorted(indices, key=lambda name: (objects.displays[indices[name]], _by_number(name))):
            if identity not in self.holders:
                slot = self._free_slot(objects, indices, bool(objects.displays[indices[identity]]))
                if slot is not None:
                    self.holders[slot] = identity
        return [None if holder is None else indices.get(holder) for holder in self.holders]

    def _free_slot(self, objects: FrameObjects, indices: dict[str, int], is_display: bool) -> int | None:
        unused = [slot for slot, holder in enumerate(self.holders) if holder is None]
        gone = [slot for slot, holder in enumerate(self.holders) if holder is not None and holder not in indices]
        of_displays = [
            slot
            for slot, holder in enumerate(self.holders)
            if holder in indices and objects.displays[indices[holder]] and not is_display
        ]
        return next(iter((*unused, *gone, *of_displays[::-1])), None)


def _by_number(identity: str) -> tuple[str, int]:
    category, _, number = identity.rpartition(" ")
    return category, int(number)


def middles(boxes: np.ndarray) -> np.ndarray:
    """The middles (y, x) of boxes (N, 4) in pixels of the frame, as keypoints have their places: (N, 2) in [-1, 1]."""
    return ((box_centers(boxes) - 0.5) / (IMAGE_SIZE - 1) * 2 - 1).clip(-1, 1)


class TrueObjects:
    """Points on the objects that OCAtari reads from the emulator; where it fails, those of the frame before.

    :param env: an environment of `make_atari_env`
    :param game: its game
    :param count: K
    """

    def __init__(self, env: gym.Env, game: str, count: int) -> None:
        self.truth = GroundTruth(env, game)
        self.count = count
        self.reset()

    def reset(self) -> None:
        """Forget the episode before."""
        self.truth.reset()
        self.slots = ObjectSlots(self.count)
        self.points = np.tile(NOWHERE, (self.count, 1))

    def place(self) -> np.ndarray:
        """The middles of the objects' boxes."""
        try:
            self.truth.step()
            objects = self.truth.objects()
        except GroundTruthError:
            return self.points
        centers = middles(objects.boxes)
        self.points = np.array(
            [NOWHERE if index is None else (*centers[index], 1.0) for index in self.slots.assign(objects)]
        )
        return self.points


class PointsInInfo(gym.Wrapper):
    """Adds the points of each frame to its info, as `POINTS`.

    :param env: an environment
    :param placer: says where they are
    """

    def __init__(self, env: gym.Env, placer: Placer) -> None:
        super().__init__(env)
        self.placer = placer

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Reset; points of the first frame."""
        observation, info = self.env.reset(**kwargs)
        self.placer.reset()
        return observation, {**info, POINTS: self.placer.place().astype(np.float32)}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step; points of the new frame."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated, truncated, {**info, POINTS: self.placer.place().astype(np.float32)}


def with_points(
    env: gym.Env, points: Literal["grid", "random", "true"], game: str, count: int, seed: int
) -> PointsInInfo:
    """An environment of `make_atari_env` that tells K points.

    :param env: the environment
    :param points: which
    :param game: its game
    :param count: K
    :param seed: of random points
    """
    placer: Placer
    if points == "grid":
        placer = GridPoints(count)
    elif points == "random":
        placer = RandomPoints(count, seed)
    else:
        placer = TrueObjects(env, game, count)
    return PointsInInfo(env, placer)


class VecPointObservation(VecEnvWrapper):
    """Observations like those of `VecPermaKeyObservation`, at the points of the infos instead of keypoints.

    :param venv: environments with `PointsInInfo`
    :param checkpoint: whose trunk makes the features
    :param like: whose observations they are like, in number too: those of peaks have a "confidence"
    :param device: where features are computed
    """

    def __init__(self, venv: VecEnv, checkpoint: str | Path, like: ReadoutConfig, device: str) -> None:
        detector = KeypointDetector(checkpoint, device=device, precision="float32", readout=like)
        self.weights, self.device = detector.trunk, resolve_device(device)
        self.trunk = place(FrozenTrunk(self.weights), self.device)
        super().__init__(venv, observation_space=KeypointSpace(detector, keep_image=False))

    def observe(self, frames: np.ndarray, points: np.ndarray) -> dict[str, np.ndarray]:
        """Observations of frames.

        :param frames: uint8 (B, 84, 84, 3)
        :param points: float32 (B, K, 3)
        """
        with torch.inference_mode():
            images = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device).permute(0, 3, 1, 2).float() / 255
            centers = torch.from_numpy(points[..., :2]).to(self.device)
            windows = gaussian_windows(centers, self.weights.map_size, self.weights.window_std)
            means = window_means(self.trunk(images), windows).cpu().numpy()
        observations = {"keypoints": points[..., :2].copy(), "features": means * points[..., 2:]}
        assert isinstance(self.observation_space, spaces.Dict)
        if "confidence" in self.observation_space.spaces:
            observations["confidence"] = points[..., 2].copy()
        return observations

    def reset(self) -> VecEnvObs:
        """Reset all environments."""
        frames: Any = self.venv.reset()
        return self.observe(frames, np.stack([info[POINTS] for info in self.venv.reset_infos]))

    def step_wait(self) -> VecEnvStepReturn:
        """Finish the step; the last frames of finished episodes are observed too."""
        frames: Any
        frames, rewards, dones, infos = self.venv.step_wait()
        finished = np.flatnonzero(dones)
        newest = [
            reset if done else info for done, info, reset in zip(dones, infos, self.venv.reset_infos, strict=True)
        ]
        last_frames = [infos[index]["terminal_observation"] for index in finished]
        batch = self.observe(
            np.stack([*last_frames, *frames]),
            np.stack([info[POINTS] for info in (*(infos[index] for index in finished), *newest)]),
        )
        for row, index in enumerate(finished):
            infos[index]["terminal_observation"] = {name: values[row] for name, values in batch.items()}
        return {name: values[len(finished) :] for name, values in batch.items()}, rewards, dones, infos


class GrayFrame(gym.ObservationWrapper):
    """Frames uint8 (84, 84, 1) of luminance, from RGB.

    :param env: an environment with frames uint8 (84, 84, 3)
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.observation_space = spaces.Box(0, 255, (IMAGE_SIZE, IMAGE_SIZE, 1), np.uint8)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """The frame's luminance."""
        return np.rint(observation @ GRAY_WEIGHTS).astype(np.uint8)[..., None]
