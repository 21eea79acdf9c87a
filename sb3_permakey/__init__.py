"""PermaKey object keypoints and Q-learning agents, Rainbow and recurrent ones, for Stable-Baselines3."""

from sb3_permakey.atari import make_atari_env
from sb3_permakey.common.run_checkpoint import RunCheckpoint, load_run
from sb3_permakey.distractors import DistractorBars
from sb3_permakey.extractors import KeypointCNN, KeypointGNN, KeypointPairs
from sb3_permakey.observation import PermaKeyObservation, VecPermaKeyObservation
from sb3_permakey.previous_step import PreviousActionReward, VecPreviousActionReward
from sb3_permakey.rainbow import Rainbow
from sb3_permakey.recurrent_dqn import RecurrentDQN
from sb3_permakey.recurrent_qrdqn import RecurrentQRDQN
from sb3_permakey.resizing import ResizeFrames, VecResizeFrames

__all__ = [
    "DistractorBars",
    "KeypointCNN",
    "KeypointGNN",
    "KeypointPairs",
    "PermaKeyObservation",
    "PreviousActionReward",
    "Rainbow",
    "RecurrentDQN",
    "RecurrentQRDQN",
    "ResizeFrames",
    "RunCheckpoint",
    "VecPermaKeyObservation",
    "VecPreviousActionReward",
    "VecResizeFrames",
    "load_run",
    "make_atari_env",
]
