"""Keypoints as observations: a gymnasium wrapper and a wrapper of SB3's vectorised environments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_permakey.keypoints import KeypointDetector, PermaKey
from sb3_permakey.keypoints.layers import IMAGE_SIZE

FRAME_SHAPE = (IMAGE_SIZE, IMAGE_SIZE, 3)


class KeypointSpace(spaces.Dict):
    """A Dict space of keypoints that carries the frozen layers that made them.

    Through it an agent's file holds what `KeypointCNN` needs, wherever the checkpoint itself has gone.

    :param detector: the detector whose keypoints are observed
    :param keep_image: with an "image" entry
    """

    def __init__(self, detector: KeypointDetector, keep_image: bool) -> None:
        count, channels = detector.num_keypoints, detector.feature_channels
        entries: dict[str, spaces.Space] = {
            "keypoints": spaces.Box(-1.0, 1.0, (count, 2), np.float32),
            "features": spaces.Box(0.0, np.inf, (count, channels), np.float32),
        }
        if keep_image:
            entries["image"] = spaces.Box(0, 255, FRAME_SHAPE, np.uint8)
        super().__init__(entries)
        self.trunk = detector.trunk


def keypoint_observations(detector: KeypointDetector, frames: np.ndarray, *, keep_image: bool) -> dict[str, np.ndarray]:
    """Observations of frames uint8 (B, 84, 84, 3): "keypoints" (B, K, 2), "features" (B, K, C), perhaps "image"."""
    centers, features, _ = detector.detect(frames)
    observations = {"keypoints": centers, "features": features}
    if keep_image:
        observations["image"] = frames
    return observations


def detector_for(
    space: spaces.Space, model_or_path: PermaKey | str | Path, device: torch.device | str, precision: str
) -> KeypointDetector:
    """A detector for an environment's observations.

    :param space: the environment's observation space
    :param model_or_path: a keypoint model or the path of a checkpoint
    :param device: where keypoints are computed
    :param precision: "float32", "bfloat16" or "auto"
    :raises ValueError: when the observations are not uint8 frames (84, 84, 3)
    :raises CheckpointError: when the checkpoint is missing, broken or for other image channels
    """
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8 or space.shape != FRAME_SHAPE:
        raise ValueError(f"keypoints need observations of Box uint8 {FRAME_SHAPE}, but the environment has {space}")
    detector = KeypointDetector(model_or_path, device=device, precision=precision)
    detector.check_channels(FRAME_SHAPE[-1])
    return detector


class PermaKeyObservation(gym.ObservationWrapper):
    """Agents see keypoints instead of pixels.

    Observations are a Dict: "keypoints" float32 (K, 2), (y, x) in [-1, 1]; "features" float32 (K, C); with `keep_image`
    also "image" uint8 (84, 84, 3).

    :param env: an environment with uint8 observations (84, 84, 3)
    :param model_or_path: a keypoint model or the path of a checkpoint
    :param keep_image: keep the pixels beside the keypoints; `KeypointCNN` needs them
    :param device: where keypoints are computed; "auto" takes a GPU when there is one
    :param precision: "float32", "bfloat16" or "auto"
    :raises ValueError: when the environment has other observations
    :raises CheckpointError: when the checkpoint is missing, broken or for other image channels
    """

    def __init__(
        self,
        env: gym.Env,
        model_or_path: PermaKey | str | Path,
        *,
        keep_image: bool = False,
        device: torch.device | str = "auto",
        precision: str = "auto",
    ) -> None:
        super().__init__(env)
        self.keep_image = keep_image
        self.detector = detector_for(env.observation_space, model_or_path, device, precision)
        self.observation_space = KeypointSpace(self.detector, keep_image)

    def observation(self, observation: np.ndarray) -> dict[str, np.ndarray]:
        """Keypoints of one frame."""
        batch = keypoint_observations(self.detector, observation[None], keep_image=self.keep_image)
        return {name: values[0] for name, values in batch.items()}


class VecPermaKeyObservation(VecEnvWrapper):
    """`PermaKeyObservation` for SB3's vectorised environments: one batch for all of them.

    The "terminal_observation" of finished episodes is converted in the same batch.

    :param venv: vectorised environment with uint8 observations (84, 84, 3)
    :param model_or_path: a keypoint model or the path of a checkpoint
    :param keep_image: keep the pixels beside the keypoints; `KeypointCNN` needs them
    :param device: where keypoints are computed; "auto" takes a GPU when there is one
    :param precision: "float32", "bfloat16" or "auto"
    :raises ValueError: when the environment has other observations
    :raises CheckpointError: when the checkpoint is missing, broken or for other image channels
    """

    def __init__(
        self,
        venv: VecEnv,
        model_or_path: PermaKey | str | Path,
        *,
        keep_image: bool = False,
        device: torch.device | str = "auto",
        precision: str = "auto",
    ) -> None:
        self.keep_image = keep_image
        self.detector = detector_for(venv.observation_space, model_or_path, device, precision)
        super().__init__(venv, observation_space=KeypointSpace(self.detector, keep_image))

    def reset(self) -> VecEnvObs:
        """Reset all environments; keypoints of their first frames."""
        return self._observe(self.venv.reset())

    def step_wait(self) -> VecEnvStepReturn:
        """Finish the step; keypoints of the new frames and of the last frames of finished episodes."""
        frames, rewards, dones, infos = self.venv.step_wait()
        finished = [index for index, info in enumerate(infos) if "terminal_observation" in info]
        last_frames = [infos[index]["terminal_observation"] for index in finished]
        batch = self._observe(np.concatenate([frames, np.stack(last_frames)]) if finished else frames)
        for row, index in enumerate(finished, start=len(infos)):
            infos[index]["terminal_observation"] = {name: values[row] for name, values in batch.items()}
        return {name: values[: len(infos)] for name, values in batch.items()}, rewards, dones, infos

    def _observe(self, frames: Any) -> dict[str, np.ndarray]:
        return keypoint_observations(self.detector, frames, keep_image=self.keep_image)
