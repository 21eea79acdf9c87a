"""Playing whole episodes, for the final test of `benchmarks.atari100k`."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv


class Player(Protocol):
    """What plays: an SB3 model, or the random policy."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """Actions of all environments, and the state after them."""


class RandomPlayer:
    """Uniform actions.

    :param actions: the environments' action space
    :param seed: of the draws
    """

    def __init__(self, actions: spaces.Space, seed: int) -> None:
        assert isinstance(actions, spaces.Discrete)
        self.count, self.generator = int(actions.n), np.random.default_rng(seed)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """Random actions; there is no state."""
        return self.generator.integers(self.count, size=len(episode_start)), None


def play_episodes(player: Player, envs: VecEnv, episodes: int) -> dict[str, list[list[float]]]:
    """Play whole games without exploration, each environment the same number one after another.

    Where a life is an episode, as in training, the player begins each life anew.

    :param player: plays all environments at once
    :param envs: N environments, whose Monitor counts whole games
    :param episodes: E games of each
    :return: "scores" and "episode_steps", N lists of E values each
    """
    scores: list[list[float]] = [[] for _ in range(envs.num_envs)]
    lengths: list[list[float]] = [[] for _ in range(envs.num_envs)]
    steps = np.zeros(envs.num_envs)
    observations: Any = envs.reset()
    state, starts = None, np.ones(envs.num_envs, dtype=bool)
    while min(len(played) for played in scores) < episodes:
        actions, state = player.predict(observations, state=state, episode_start=starts, deterministic=True)
        observations, _, starts, infos = envs.step(actions)
        steps += 1
        for index in np.flatnonzero(starts):
            if "episode" not in infos[index]:
                continue
            if len(scores[index]) < episodes:
                scores[index].append(float(infos[index]["episode"]["r"]))
                lengths[index].append(float(steps[index]))
            steps[index] = 0
    return {"scores": scores, "episode_steps": lengths}
