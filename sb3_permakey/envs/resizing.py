"""Frames of any size, and gray ones, made into the frames that keypoints are read from: uint8 (84, 84, 3)."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_permakey.envs.episode_ends import LAST, ended_and_told
from sb3_permakey.envs.wrapping import require_environment, require_vectorised
from sb3_permakey.extras import missing_package
from sb3_permakey.keypoints.layers import IMAGE_SIZE


def resize(frames: np.ndarray, size: int = IMAGE_SIZE) -> np.ndarray:
    """Frames uint8 (B, size, size, C), each pixel the mean of the area that it covers.

    :param frames: uint8 (B, H, W, C)
    :param size: height and width of the new frames, in pixels
    :raises ImportError: when OpenCV is not installed
    """
    if frames.shape[1:3] == (size, size):
        return frames
    try:
        import cv2
    except ImportError as error:
        raise missing_package("Resizing frames needs OpenCV", "atari") from error
    resized = [cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA) for frame in frames]
    # OpenCV drops the axis of a single channel.
    return np.stack(resized).reshape(len(frames), size, size, frames.shape[-1])


class ResizeFrames(gym.ObservationWrapper):
    """Frames uint8 (84, 84, 3) of an environment whose frames have another size, or one channel.

    :param env: an environment with observations uint8 (H, W, 3), or gray (H, W, 1) or (H, W)
    :param repeat_gray: gray frames are repeated to three channels
    :raises ValueError: when the observations are no such frames, or gray without `repeat_gray`
    """

    def __init__(self, env: gym.Env, *, repeat_gray: bool = False) -> None:
        require_environment(env, "ResizeFrames", "VecResizeFrames")
        super().__init__(env)
        self.observation_space = resized_space(env.observation_space, repeat_gray)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """The frame, resized."""
        return _convert(observation[None])[0]


class VecResizeFrames(VecEnvWrapper):
    """`ResizeFrames` for SB3's vectorised environments; the "terminal_observation" of episodes is converted too.

    :param venv: environments with observations uint8 (H, W, 3), or gray (H, W, 1) or (H, W)
    :param repeat_gray: gray frames are repeated to three channels
    :raises ValueError: when the observations are no such frames, or gray without `repeat_gray`
    """

    def __init__(self, venv: VecEnv, *, repeat_gray: bool = False) -> None:
        require_vectorised(venv, "VecResizeFrames", "ResizeFrames")
        super().__init__(venv, observation_space=resized_space(venv.observation_space, repeat_gray))

    def reset(self) -> VecEnvObs:
        """Reset all environments; their first frames."""
        frames: Any = self.venv.reset()
        return _convert(frames)

    def step_wait(self) -> VecEnvStepReturn:
        """Finish the step; the new frames, and the last frames of finished episodes where they are told."""
        frames: Any
        frames, rewards, dones, infos = self.venv.step_wait()
        for index in ended_and_told(dones, infos):
            infos[index][LAST] = _convert(infos[index][LAST][None])[0]
        return _convert(frames), rewards, dones, infos


def resized_space(space: spaces.Space, repeat_gray: bool) -> spaces.Box:
    """The space of the resized frames.

    :param space: of the environment
    :param repeat_gray: gray frames are repeated to three channels
    :raises ValueError: when the space has no frames, or gray ones without `repeat_gray`
    """
    shape = space.shape or ()
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8 or len(shape) not in (2, 3):
        raise ValueError(f"frames to resize are Box uint8 (H, W, 3), or gray, but the environment has {space}")
    channels = shape[2] if len(shape) == 3 else 1
    if channels == 1 and not repeat_gray:
        raise ValueError(f"the environment has gray frames, {space}: repeat_gray=True repeats them to three channels")
    if channels not in (1, 3):
        raise ValueError(
            f"frames to resize have 3 channels, or 1, in the last axis, but the environment has {channels}: {space}"
        )
    return spaces.Box(0, 255, (IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)


def _convert(frames: np.ndarray) -> np.ndarray:
    """uint8 (B, H, W, 3), (B, H, W, 1) or (B, H, W) to (B, 84, 84, 3)."""
    frames = resize(frames if frames.ndim == 4 else frames[..., None])
    return frames if frames.shape[-1] == 3 else np.repeat(frames, 3, axis=-1)
