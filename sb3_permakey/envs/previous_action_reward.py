"""The previous action and reward as part of what an agent observes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_permakey.envs.episode_ends import LAST, ended_and_told
from sb3_permakey.envs.wrapping import require_environment, require_vectorised

OBSERVATION = "observation"
"""Key of observations that were not a dict before."""
PREVIOUS_ACTION, PREVIOUS_REWARD = "previous_action", "previous_reward"


class PreviousActionReward(gym.ObservationWrapper):
    """Adds the previous action, one-hot, and the previous reward to the observations, zeros at an episode's start.

    As R2D2's network takes them (Kapturowski et al. 2019, section 2.3). Observations become a dict, the old one under
    "observation" unless it was a dict already; "previous_action" is float32 (actions,), "previous_reward" float32 (1,).

    :param env: an environment with Discrete actions
    :raises ValueError: when its actions are of another kind
    """

    def __init__(self, env: gym.Env) -> None:
        require_environment(env, "PreviousActionReward", "VecPreviousActionReward")
        super().__init__(env)
        self.observation_space = with_previous_step(env.observation_space, env.action_space)
        self._previous = PreviousSteps(env.action_space, 1)

    def reset(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Reset; nothing came before."""
        self._previous.forget(np.ones(1, dtype=bool))
        return super().reset(**kwargs)

    def step(self, action: Any) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        """Step; its action and reward are part of the observation that follows."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._previous.note(np.array([action]), np.array([reward]))
        return self.observation(observation), reward, terminated, truncated, info

    def observation(self, observation: Any) -> dict[str, Any]:
        """The observation with the previous step."""
        return self._previous.joined_to(observation, 0)


class VecPreviousActionReward(VecEnvWrapper):
    """PreviousActionReward around SB3's vectorised environments.

    :param venv: environments with Discrete actions
    :raises ValueError: when their actions are of another kind
    """

    def __init__(self, venv: VecEnv) -> None:
        require_vectorised(venv, "VecPreviousActionReward", "PreviousActionReward")
        super().__init__(venv, observation_space=with_previous_step(venv.observation_space, venv.action_space))
        self._previous = PreviousSteps(venv.action_space, venv.num_envs)
        self._actions = np.zeros(venv.num_envs, dtype=np.int64)

    def reset(self) -> VecEnvObs:
        """Reset; nothing came before."""
        self._previous.forget(np.ones(self.num_envs, dtype=bool))
        return self._observations(self.venv.reset())

    def step_async(self, actions: np.ndarray) -> None:
        """Begin a step."""
        self._actions = np.reshape(actions, self.num_envs)
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """End a step; an episode's last observation has the step that led to it, the next one's first has none."""
        observations, rewards, dones, infos = self.venv.step_wait()
        self._previous.note(self._actions, rewards)
        for index in ended_and_told(dones, infos):
            infos[index][LAST] = self._previous.joined_to(infos[index][LAST], index)
        self._previous.forget(np.asarray(dones, dtype=bool))
        return self._observations(observations), rewards, dones, infos

    def _observations(self, observations: VecEnvObs) -> VecEnvObs:
        assert not isinstance(observations, tuple)
        return self._previous.joined_to(observations)


class PreviousSteps:
    """Previous action, one-hot, and reward of each environment; zeros where an episode begins.

    :param action_space: Discrete
    :param num_envs: number of environments
    """

    def __init__(self, action_space: spaces.Space, num_envs: int) -> None:
        assert isinstance(action_space, spaces.Discrete)
        self._start = int(action_space.start)
        self.actions = np.zeros((num_envs, int(action_space.n)), dtype=np.float32)
        self.rewards = np.zeros((num_envs, 1), dtype=np.float32)

    def forget(self, where: np.ndarray) -> None:
        """Set to zero where (num_envs,) is true."""
        self.actions[where] = 0
        self.rewards[where] = 0

    def note(self, actions: np.ndarray, rewards: np.ndarray) -> None:
        """Actions and rewards (num_envs,) of the step just made."""
        self.actions[:] = 0
        self.actions[np.arange(len(actions)), actions - self._start] = 1
        self.rewards[:, 0] = rewards

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the environments alone, numbered anew from 0."""
        self.actions, self.rewards = self.actions[list(rows)], self.rewards[list(rows)]

    def joined_to(self, observations: Any, where: int | slice = slice(None)) -> dict[str, Any]:
        """Observations of all environments, or of one, with their previous steps: a dict of these."""
        return {
            **(observations if isinstance(observations, dict) else {OBSERVATION: observations}),
            PREVIOUS_ACTION: self.actions[where].copy(),
            PREVIOUS_REWARD: self.rewards[where].copy(),
        }


def with_previous_step(space: spaces.Space, action_space: spaces.Space) -> spaces.Dict:
    """The observation space with the previous action and reward.

    :param space: any observation space
    :param action_space: must be Discrete
    :raises ValueError: when it is not
    """
    if not isinstance(action_space, spaces.Discrete):
        raise ValueError(f"the previous action can be observed where actions are Discrete, got {action_space}.")
    # A copy, so that what a dict space carries beside its parts (a keypoint model's trunk) stays with it.
    whole = copy.copy(space) if isinstance(space, spaces.Dict) else spaces.Dict({OBSERVATION: space})
    whole.spaces = {
        **whole.spaces,
        PREVIOUS_ACTION: spaces.Box(0, 1, (int(action_space.n),), np.float32),
        PREVIOUS_REWARD: spaces.Box(-np.inf, np.inf, (1,), np.float32),
    }
    return whole


def previous_step_size(space: spaces.Space) -> int:
    """Values of the previous action and reward in the observations; 0 where they hold none."""
    if not isinstance(space, spaces.Dict) or not {PREVIOUS_ACTION, PREVIOUS_REWARD} <= set(space.spaces):
        return 0
    return spaces.flatdim(space[PREVIOUS_ACTION]) + spaces.flatdim(space[PREVIOUS_REWARD])


def without_previous_step(space: spaces.Space) -> spaces.Space:
    """The observation space without the previous action and reward; the rest of it as it is."""
    if not previous_step_size(space):
        return space
    rest = copy.copy(space)
    assert isinstance(space, spaces.Dict)
    assert isinstance(rest, spaces.Dict)
    rest.spaces = {key: part for key, part in space.items() if key not in (PREVIOUS_ACTION, PREVIOUS_REWARD)}
    return rest
