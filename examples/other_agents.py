"""Keypoint encoders in the agents of SB3 and sb3-contrib."""

from sb3_contrib import QRDQN, RecurrentPPO
from stable_baselines3 import DQN, PPO

from sb3_permakey import KeypointGNN, PermaKeyObservation, make_atari_env

CHECKPOINT = "mspacman"

env = PermaKeyObservation(make_atari_env("MsPacman", seed=0), CHECKPOINT)
policy_kwargs = {"features_extractor_class": KeypointGNN}

for algorithm, policy, settings in (
    (DQN, "MultiInputPolicy", {"buffer_size": 10_000}),
    (QRDQN, "MultiInputPolicy", {"buffer_size": 10_000}),
    (PPO, "MultiInputPolicy", {"n_steps": 256}),
    (RecurrentPPO, "MultiInputLstmPolicy", {"n_steps": 256}),
):
    model = algorithm(policy, env, policy_kwargs=policy_kwargs, seed=0, **settings)
    model.learn(600)
    print(f"{algorithm.__name__}: {model.num_timesteps} steps with {policy}")
