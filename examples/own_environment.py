"""Keypoints of an environment of one's own, from its frames to an agent: CartPole, seen as a picture.

Besides the extra "atari", whose OpenCV shrinks the picture, it needs pygame, which draws it.
In one run, on one thread beside other work, frames and pretraining took 6 minutes and the agent 13: 428 steps (std 75)
over 10 episodes, of at most 500; random actions make 21 (6 peaks of a model that was made for 4 keypoints).
"""

from pathlib import Path

import gymnasium as gym
from gymnasium.wrappers import AddRenderObservation, ResizeObservation
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_permakey import PermaKeyObservation, RecurrentDQN
from sb3_permakey.common.presets import STRONG
from sb3_permakey.keypoints import PermaKeyConfig
from sb3_permakey.pretraining import PretrainConfig, pretrain, record_frames

FOLDER = Path("runs/own_environment")


def make_env() -> gym.Env:
    """CartPole whose observations are frames uint8 (84, 84, 3)."""
    env = Monitor(gym.make("CartPole-v1", render_mode="rgb_array"))
    return ResizeObservation(AddRenderObservation(env), (84, 84))


record_frames(make_env(), FOLDER / "frames", frames=4_000)
# Peaks of the error maps are read here: the PointNet, which learns last, is not needed.
settings = PretrainConfig(
    out=FOLDER / "cartpole.safetensors",
    frames=FOLDER / "frames",
    model=PermaKeyConfig(num_keypoints=6),
    schedule="staged",
    lspn_stride=4,
    max_steps=300,
    pointnet_steps=1,
)
checkpoint = pretrain(settings)

env = PermaKeyObservation(make_env(), checkpoint, readout="peaks")
model = RecurrentDQN("PermaKeyPolicy", env, **STRONG, value_rescaling=True, learning_starts=1_000, seed=0)
model.learn(20_000)
mean, std = evaluate_policy(model, env, n_eval_episodes=10)
print(f"return over 10 episodes: {mean:.0f} +- {std:.0f}")
