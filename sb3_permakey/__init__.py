"""PermaKey object keypoints and Q-learning agents, Rainbow and recurrent ones, for Stable-Baselines3."""

from sb3_permakey.common.run_checkpoint import RunCheckpoint, load_run
from sb3_permakey.encoders import KeypointAttention, KeypointCNN, KeypointGNN, KeypointPairs, SmallCNN
from sb3_permakey.envs.atari import make_atari_env
from sb3_permakey.envs.distractors import DistractorBars
from sb3_permakey.envs.keypoints import PermaKeyObservation, VecPermaKeyObservation
from sb3_permakey.envs.novelty import VecKeypointNovelty
from sb3_permakey.envs.previous_action_reward import PreviousActionReward, VecPreviousActionReward
from sb3_permakey.envs.resizing import ResizeFrames, VecResizeFrames
from sb3_permakey.rainbow import Rainbow
from sb3_permakey.recurrent_dqn import RecurrentDQN
from sb3_permakey.recurrent_qrdqn import RecurrentQRDQN

__all__ = [
    "DistractorBars",
    "KeypointAttention",
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
    "SmallCNN",
    "VecKeypointNovelty",
    "VecPermaKeyObservation",
    "VecPreviousActionReward",
    "VecResizeFrames",
    "load_run",
    "make_atari_env",
]
