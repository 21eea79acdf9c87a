"""PermaKey object keypoints and recurrent Q-learning agents for Stable-Baselines3."""

from sb3_permakey.atari import make_atari_env
from sb3_permakey.distractors import DistractorBars
from sb3_permakey.extractors import KeypointCNN, KeypointGNN
from sb3_permakey.observation import PermaKeyObservation, VecPermaKeyObservation
from sb3_permakey.recurrent_dqn import RecurrentDQN

__all__ = [
    "DistractorBars",
    "KeypointCNN",
    "KeypointGNN",
    "PermaKeyObservation",
    "RecurrentDQN",
    "VecPermaKeyObservation",
    "make_atari_env",
]
