"""Environments whose observations count the steps of an episode, and what follows for windows of them."""

import gymnasium as gym
import numpy as np
from device_option import DEVICE
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_permakey.recurrent_dqn import RecurrentDQN

SMALL = {
    "learning_starts": 20,
    "buffer_size": 200,
    "batch_size": 4,
    "sequence_length": 4,
    "device": DEVICE,
    "seed": 0,
    "policy_kwargs": {"lstm_hidden_size": 8},
}


class CountingEnv(gym.Env):
    """Observations count the steps of an episode of a given length, which ends truly or by a time limit."""

    def __init__(self, observation_space, length=7, time_limit=False):
        self.observation_space = observation_space
        self.action_space = spaces.Discrete(3)
        self.length = length
        self.time_limit = time_limit
        self.step_number = 0

    def observe(self, space=None):
        space = space or self.observation_space
        if isinstance(space, spaces.Dict):
            return {key: self.observe(subspace) for key, subspace in space.spaces.items()}
        if isinstance(space, spaces.Discrete):
            return np.int64(self.step_number)
        return np.full(space.shape, self.step_number, space.dtype)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.step_number = 0
        return self.observe(), {}

    def step(self, action):
        self.step_number += 1
        over = self.step_number == self.length
        return self.observe(), float(action), over and not self.time_limit, over and self.time_limit, {}


VECTOR = spaces.Box(-100, 100, (2,))
IMAGE = spaces.Box(0, 255, (36, 36, 3), np.uint8)
MIXED = spaces.Dict({"image": IMAGE, "vector": VECTOR})
KEYPOINTS = spaces.Dict({"keypoints": spaces.Box(-1, 1, (3, 2)), "features": spaces.Box(0, np.inf, (3, 64))})


def make_vec_env(n_envs, space=VECTOR):
    return DummyVecEnv([lambda e=e: CountingEnv(space, length=5 + 2 * e, time_limit=e == 1) for e in range(n_envs)])


def check_counting_windows(model):
    samples = model.replay_buffer.sample(400)
    steps = samples.observations[..., 0].cpu().numpy()
    grows = np.diff(steps, axis=0)
    np.testing.assert_array_equal(grows, samples.acted[:-1].cpu().numpy())
    last = np.take_along_axis(steps, (samples.acted.cpu().numpy().sum(axis=0)[None] - 1).clip(0), axis=0)
    ends = samples.terminated.cpu().numpy().any(axis=0)
    assert set(last[0, ends]) <= {4.0}  # only the environment with 5 steps ends truly


class Noise(gym.Env):
    """Random observations of any space; episodes of 6 steps."""

    action_space = spaces.Discrete(3)

    def __init__(self, observation_space):
        self.observation_space = observation_space

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.steps += 1
        return self.observation_space.sample(), 1.0, False, self.steps == 6, {}


def make_model(n_envs=1, space=VECTOR, policy="MlpLstmPolicy", agent=RecurrentDQN, **kwargs):
    return agent(policy, make_vec_env(n_envs, space), **{**SMALL, **kwargs})
