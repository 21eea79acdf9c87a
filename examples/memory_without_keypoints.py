"""RecurrentDQN on its own: CartPole whose velocities are hidden, so that an agent must remember positions."""

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import TransformObservation, TransformReward
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_permakey import RecurrentDQN

REWARD, STEPS = 0.03, 50_000


def cartpole_without_velocities() -> gym.Env:
    """Observations are the cart's place and the pole's angle alone; rewards of 0.03 keep returns near 3."""
    env = gym.make("CartPole-v1")
    positions = gym.spaces.Box(env.observation_space.low[[0, 2]], env.observation_space.high[[0, 2]], dtype=np.float32)
    env = TransformObservation(env, lambda observation: observation[[0, 2]] * np.float32([1, 5]), positions)
    return TransformReward(env, lambda reward: REWARD * reward)


model = RecurrentDQN(
    "MlpLstmPolicy",
    cartpole_without_velocities(),
    learning_rate=lambda remaining: 1e-3 * remaining,
    buffer_size=20_000,
    learning_starts=1_000,
    sequence_length=16,
    burn_in=8,
    recurrent_state="stored",
    tau=0.02,
    exploration_fraction=0.3,
    exploration_final_eps=0.05,
    policy_kwargs={"lstm_hidden_size": 64},
    seed=1,
)
model.learn(STEPS, progress_bar=True)
mean, std = evaluate_policy(model, cartpole_without_velocities(), n_eval_episodes=10, warn=False)
print(f"steps balanced over 10 episodes: {mean / REWARD:.0f} +- {std / REWARD:.0f} of 500")
