"""Recurrent QR-DQN: the agent and its policies."""

from sb3_permakey.recurrent_qrdqn.policies import CnnLstmPolicy, MlpLstmPolicy, MultiInputLstmPolicy, PermaKeyPolicy
from sb3_permakey.recurrent_qrdqn.recurrent_qrdqn import RecurrentQRDQN

__all__ = ["CnnLstmPolicy", "MlpLstmPolicy", "MultiInputLstmPolicy", "PermaKeyPolicy", "RecurrentQRDQN"]
