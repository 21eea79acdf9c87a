import gymnasium as gym
import numpy as np
import pytest
from conftest import MovingSquare
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_permakey import RecurrentDQN, VecKeypointNovelty, VecPermaKeyObservation
from sb3_permakey.common.run_checkpoint import load_run, save_run
from sb3_permakey.envs.novelty import NOVELTY

LEFT, RIGHT = (-0.9, -0.9), (-0.9, 0.9)
ROUND, FLAT = (1.0, -2.0, 3.0), (-1.0, 2.0, -3.0)
"""Features whose projections have opposite signs, and whose mean is zero."""
MIDDLE = (0.05, 0.05)


class Script(gym.Env):
    """Shows one observation after another, lists of (position, features), which end an episode where they are None."""

    observation_space = spaces.Dict(
        {"keypoints": spaces.Box(-1, 1, (2, 2), np.float32), "features": spaces.Box(-9, 9, (2, 3), np.float32)}
    )
    action_space = spaces.Discrete(2)

    def __init__(self, script):
        self.script, self.at = script, 0

    def _shown(self):
        positions, features = zip(*self.script[self.at % len(self.script)], strict=True)
        self.at += 1
        return {"keypoints": np.array(positions, np.float32), "features": np.array(features, np.float32)}

    def reset(self, **kwargs):
        return self._shown(), {}

    def step(self, action):
        if self.script[self.at % len(self.script)] is None:
            self.at += 1
            return self.observation_space.sample(), 1.0, True, False, {}
        return self._shown(), 1.0, False, False, {}


BOTH = [(MIDDLE, ROUND), (MIDDLE, FLAT)]
"""Shown at the reset and while features' mean is taken, which is zero then."""


def bonuses(script, steps, **settings):
    env = VecKeypointNovelty(DummyVecEnv([lambda: Script(script)]), **{"scale": 0.1, "warm_up": 1, **settings})
    env.reset()
    told = []
    for _ in range(steps):
        _, rewards, _, infos = env.step(np.zeros(1, int))
        assert rewards.dtype == np.float32
        assert rewards[0] == pytest.approx(1 + infos[0][NOVELTY])
        told.append(infos[0][NOVELTY])
    return told


def test_what_is_new_in_an_episode_is_worth_less_with_each_episode_that_had_it():
    there = [(LEFT, ROUND), (LEFT, FLAT)]
    episode = [BOTH, there, there, [(LEFT, ROUND), (RIGHT, ROUND)], None]
    # An episode's first observation, and its last one of which only the step is told, have no bonus.
    assert bonuses([BOTH, *episode, *episode[:-1]], 9)[:4] == pytest.approx([0, 0.2, 0, 0.1])
    second = [0.2 / 2**0.5, 0, 0.1 / 2**0.5]
    assert bonuses([BOTH, *episode, *episode[:-1]], 9)[4:8] == pytest.approx([0, *second])


def test_two_keypoints_of_a_kind_in_a_cell_are_one():
    assert bonuses([BOTH, BOTH, [(LEFT, ROUND), (LEFT, ROUND)]], 2) == pytest.approx([0, 0.1])
    far = [(LEFT, ROUND), (RIGHT, ROUND)]
    assert bonuses([BOTH, BOTH, far], 2, scale=0.3) == pytest.approx([0, 0.6])
    assert bonuses([BOTH, BOTH, far], 2, cells=1) == pytest.approx([0, 0.1])


def test_kinds_are_told_by_signs_about_the_mean_of_the_first_steps():
    # Both are on one side of zero, and on two sides of their mean.
    near, nearer = (5.0, 5.0, 5.0), (1.0, 1.0, 1.0)
    first = [(MIDDLE, near), (MIDDLE, nearer)]
    there = [(LEFT, near), (LEFT, nearer)]
    assert bonuses([first, first, there], 2) == pytest.approx([0, 0.2])
    ahead = [(MIDDLE, (0.0, 0.0, 0.0))] * 2
    assert bonuses([ahead, ahead, there], 2) == pytest.approx([0, 0.1])


def test_nothing_is_new_in_the_warm_up():
    script = [BOTH, *([BOTH, [(LEFT, ROUND), (RIGHT, FLAT)]] * 5)]
    assert bonuses(script, 6, warm_up=5)[:5] == [0] * 5
    assert bonuses(script, 6, warm_up=5)[5] > 0


def test_environments_share_the_counts_and_not_the_episodes():
    there = [BOTH, BOTH, [(LEFT, ROUND), (RIGHT, ROUND)]]
    env = VecKeypointNovelty(DummyVecEnv([lambda: Script(there)] * 2), warm_up=1)
    env.reset()
    env.step(np.zeros(2, int))
    _, rewards, _, _ = env.step(np.zeros(2, int))
    assert rewards == pytest.approx([1.2, 1 + 0.2 / 2**0.5])


def pixels():
    return DummyVecEnv([lambda: gym.make("CartPole-v1")])


def scripted():
    return DummyVecEnv([lambda: Script([BOTH])])


@pytest.mark.parametrize(
    ("make", "settings", "sentence"),
    [
        (lambda: Script([BOTH]), {}, "VecKeypointNovelty wraps vectorised environments .* first"),
        (pixels, {}, "needs the observations of VecPermaKeyObservation, not Box"),
        (lambda: VecNormalize(scripted()), {}, "belongs below VecNormalize"),
        (scripted, {"scale": 0.0}, "scale must be a number above 0, got 0.0"),
        (scripted, {"scale": float("nan")}, "scale must be a number above 0, got nan"),
        (scripted, {"scale": float("inf")}, "scale must be a number above 0, got inf"),
        (scripted, {"bits": 17}, "bits from 1 to 16"),
        (scripted, {"cells": 0}, "cells and warm_up must be 1 or more"),
        (scripted, {"warm_up": 0}, "cells and warm_up must be 1 or more"),
    ],
)
def test_bad_input(make, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        VecKeypointNovelty(make(), **settings)


def test_replay_has_the_bonus_and_monitors_below_have_not():
    script = [BOTH, BOTH, [(LEFT, ROUND), (RIGHT, FLAT)], BOTH, None]
    env = VecKeypointNovelty(DummyVecEnv([lambda: Monitor(Script(script))]), warm_up=1)
    model = RecurrentDQN("MultiInputLstmPolicy", env, learning_starts=100, buffer_size=60, seed=0)
    with pytest.warns(UserWarning, match="learns nothing"):
        model.learn(40)
    assert {episode["r"] for episode in model.ep_info_buffer} == {4}
    rewards = model.replay_buffer.contents()["rewards"].ravel()[:8]
    # Two episodes, with what replay has for the last observation of the first between them.
    again = 1 + 0.2 / 2**0.5
    assert rewards == pytest.approx([1, 1.2, 1.2, 1, 0, again, again, 1])


def test_a_killed_run_goes_on_with_its_counts(checkpoint, tmp_path):
    def make(**settings):
        venv = VecPermaKeyObservation(DummyVecEnv([lambda: MovingSquare(8)]), checkpoint, readout="peaks")
        # Another wrapper around it, which has the attributes of those within.
        return VecNormalize(VecKeypointNovelty(venv, warm_up=3, **settings), norm_obs=False)

    env = make()
    model = RecurrentDQN("PermaKeyPolicy", env, learning_starts=100, buffer_size=60, seed=0)
    with pytest.warns(UserWarning, match="learns nothing"):
        model.learn(40)
    save_run(model, tmp_path)
    other = make(seed=5)
    load_run(RecurrentDQN, tmp_path, other)
    before, after = env.venv.contents(), other.venv.contents()
    assert before["counts"].sum() > 5
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)
    with pytest.raises(ValueError, match=r"counts of VecKeypointNovelty are \(16, 10, 10\), needed are \(16, 8, 8\)"):
        load_run(RecurrentDQN, tmp_path, make(cells=8))
