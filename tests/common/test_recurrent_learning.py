"""What RecurrentDQN can only learn with its memory."""

import gymnasium as gym
import numpy as np
import pytest
from device_option import DEVICE
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_permakey.recurrent_dqn import RecurrentDQN

pytestmark = pytest.mark.usefixtures("one_thread")


class RecallEnv(gym.Env):
    """A cue is shown at the first step only; the action of the fifth step is right if it names the cue."""

    observation_space = spaces.Box(0, 1, (3,))
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.cue, self.step_number = int(self.np_random.integers(2)), 0
        return np.array([self.cue == 0, self.cue == 1, 0], np.float32), {}

    def step(self, action):
        self.step_number += 1
        over = self.step_number == 5
        reward = float(over and action == self.cue)
        return np.array([0, 0, self.step_number == 4], np.float32), reward, over, False, {}


def test_remembers_what_it_no_longer_sees():
    model = RecurrentDQN(
        "MlpLstmPolicy",
        RecallEnv(),
        learning_rate=5e-3,
        learning_starts=200,
        buffer_size=3000,
        tau=0.05,
        exploration_fraction=0.5,
        policy_kwargs={"lstm_hidden_size": 16},
        seed=0,
        device=DEVICE,
    ).learn(3000)
    mean_reward, _ = evaluate_policy(model, Monitor(RecallEnv()), n_eval_episodes=60)
    assert mean_reward > 0.95, "without memory 0.5 is the best"


class PositionsOnly(gym.ObservationWrapper):
    """CartPole without its velocities, and with positions and rewards scaled to about one.

    With rewards of 1, and so Q values near 100, errors are far over 1, where the Huber loss seeks the targets' median
    and not their mean; then the rare targets of a fall count too little.
    """

    def __init__(self, env):
        super().__init__(gym.wrappers.TransformReward(env, lambda reward: 0.1 * reward))
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,))

    def observation(self, observation):
        return observation[[0, 2]] * np.array([1, 5], np.float32)


@pytest.mark.slow
def test_balances_a_pole_whose_velocity_it_must_infer():
    test_env = Monitor(PositionsOnly(gym.make("CartPole-v1")))
    test_env.reset(seed=1000)
    scores = []

    class Evaluate(BaseCallback):
        def _on_step(self):
            if self.num_timesteps % 4000 == 0:
                scores.append(evaluate_policy(self.model, test_env, n_eval_episodes=10)[0] / 0.1)
            return True

    model = RecurrentDQN(
        "MlpLstmPolicy",
        PositionsOnly(gym.make("CartPole-v1")),
        learning_rate=1e-3,
        learning_starts=1000,
        sequence_length=16,
        batch_size=32,
        train_freq=2,
        exploration_fraction=0.3,
        exploration_final_eps=0.05,
        policy_kwargs={"lstm_hidden_size": 64},
        seed=0,
        device=DEVICE,
    )
    model.learn(40_000, Evaluate())
    assert max(scores) > 300

    # The same network without its memory.
    observation, _ = test_env.reset()
    over, score = False, 0
    while not over:
        action, _ = model.predict(observation, deterministic=True)
        observation, _, terminated, truncated, _ = test_env.step(action)
        over, score = terminated or truncated, score + 1
    assert score < 200
