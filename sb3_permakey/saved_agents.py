"""Saved agents: loaded without naming their algorithm, playing from frames."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sb3_contrib
import stable_baselines3
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_permakey.keypoints import KeypointDetector
from sb3_permakey.observation import keypoint_observations
from sb3_permakey.recurrent_dqn import RecurrentDQN


class AgentFileError(ValueError):
    """A saved agent that is missing, broken or of an unknown algorithm."""


ALGORITHMS: dict[str, type[BaseAlgorithm]] = {
    "sb3_permakey.recurrent_dqn": RecurrentDQN,
    "stable_baselines3.dqn": stable_baselines3.DQN,
    "stable_baselines3.ppo": stable_baselines3.PPO,
    "stable_baselines3.a2c": stable_baselines3.A2C,
    "sb3_contrib.qrdqn": sb3_contrib.QRDQN,
    "sb3_contrib.common.recurrent": sb3_contrib.RecurrentPPO,
}
"""Algorithms by the module of their policies."""


def load_agent(path: str | Path, **load_kwargs) -> BaseAlgorithm:
    """Load a model that SB3's `save` wrote.

    SB3's files hold pickles: load only those that you trust.

    :param path: the zip file
    :param load_kwargs: what the algorithm's `load` takes beside the path
    :raises AgentFileError: when the file is missing, broken or of an unknown algorithm
    """
    path = Path(path)
    if not path.is_file():
        raise AgentFileError(f"no saved agent at {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            data = json.loads(archive.read("data"))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise AgentFileError(f"{path} is not a model saved by Stable-Baselines3") from error
    module = data.get("policy_class", {}).get("__module__", "")
    for prefix, algorithm in ALGORITHMS.items():
        if module.startswith(prefix):
            return algorithm.load(path, **load_kwargs)
    raise AgentFileError(f"{path} was saved by an algorithm that is not known here (policy in {module or 'no module'})")


class FrameAgent:
    """A saved agent that plays several games at once from their frames, without exploration.

    :param agent: the saved model's file
    :param checkpoint: keypoint checkpoint, for an agent that sees keypoints
    :raises AgentFileError: when the agent sees keypoints and no checkpoint is given
    """

    def __init__(self, agent: str | Path, checkpoint: str | Path | None) -> None:
        self.agent = load_agent(agent)
        sees_keypoints = isinstance(self.agent.observation_space, spaces.Dict)
        if sees_keypoints and checkpoint is None:
            raise AgentFileError(f"{agent} sees keypoints: name the checkpoint that makes them with --checkpoint")
        self.detector = KeypointDetector(checkpoint) if sees_keypoints and checkpoint is not None else None
        self.state: tuple[np.ndarray, ...] | None = None

    def act(self, frames: np.ndarray, episode_starts: np.ndarray) -> np.ndarray:
        """Greedy actions.

        :param frames: uint8 (B, 84, 84, 3), one of each game
        :param episode_starts: bool (B,), True where the frame is a game's first
        :return: (B,)
        """
        observations: Any = frames
        if self.detector is not None:
            keep_image = "image" in self.agent.observation_space.spaces  # type: ignore[attr-defined]
            observations = keypoint_observations(self.detector, frames, keep_image=keep_image)
        actions, self.state = self.agent.predict(observations, self.state, episode_starts, deterministic=True)
        return actions

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the games alone."""
        if self.state is not None:
            self.state = tuple(part[:, rows] for part in self.state)
