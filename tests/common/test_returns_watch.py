import warnings

import gymnasium as gym
import numpy as np
import pytest
from counting_env import CountingEnv
from device_option import DEVICE

from sb3_permakey import Rainbow, RecurrentDQN
from sb3_permakey.common.returns_watch import ReturnsWatch

SMALL = {"learning_starts": 20, "buffer_size": 500, "batch_size": 4, "device": DEVICE, "seed": 0}
NO, YES = np.array([False]), np.array([True])


def steps(watch, rewards, gamma=1.0):
    """An episode of one environment."""
    for number, reward in enumerate(rewards, start=1):
        watch.note(np.array([float(reward)]), YES if number == len(rewards) else NO, gamma)


def test_an_episodes_return_is_discounted_and_may_lie_beyond_an_end_by_the_ranges_width():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch = ReturnsWatch(1, -1, 2)
        steps(watch, [1, 1, 1, 1, 1])  # 5 = 2 + 3
        steps(watch, [-1, -1, -1, -1])  # -4 = -1 - 3
        steps(watch, [1] * 100, gamma=0.75)  # below 1 / (1 - 0.75) = 4
    with pytest.warns(UserWarning, match="which sum up to 6, cannot be told from others beyond v_min=-1 and"):
        steps(watch, [1, 1, 1, 1, 1, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steps(watch, [1] * 30)  # it was said once


def test_a_reward_alone_may_not_lie_beyond_an_end():
    with pytest.warns(UserWarning, match="a reward of -1.5 cannot be told from others beyond v_min=-1 and v_max=2"):
        steps(ReturnsWatch(1, -1, 2), [-1.5])


def test_environments_have_sums_of_their_own():
    watch = ReturnsWatch(2, 0, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for done in ([True, False], [False, True], [True, False], [False, True]):
            watch.note(np.array([1.0, 1.0]), np.array(done), 1.0)


def test_episodes_that_were_left_do_not_count():
    watch = ReturnsWatch(1, 0, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            watch.begin()
            watch.note(np.array([1.0]), NO, 1.0)
            watch.note(np.array([1.0]), NO, 1.0)
        watch.begin()
        steps(watch, [1])


class Paying(CountingEnv):
    """Pays 50 at each step."""

    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, 50.0, *rest


def test_agents_with_a_distribution_over_returns_say_so():
    env = Paying(gym.spaces.Box(0, np.inf, (2,), np.float32))
    with pytest.warns(UserWarning, match="a reward of 50 cannot be told"):
        Rainbow("MlpPolicy", env, **SMALL).learn(25)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Which explore to the end, since an end before learning starts is warned of too.
        Rainbow("MlpPolicy", env, v_max=5000, exploration_fraction=1.0, **SMALL).learn(25)
        Rainbow("MlpPolicy", env, value_head="quantile", exploration_fraction=1.0, **SMALL).learn(25)
        RecurrentDQN("MlpLstmPolicy", env, **SMALL).learn(25)
