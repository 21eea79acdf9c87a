"""Recurrent DQN: the agent and its policies."""

from sb3_permakey.recurrent_dqn.policies import CnnLstmPolicy, MlpLstmPolicy, MultiInputLstmPolicy, PermaKeyPolicy
from sb3_permakey.recurrent_dqn.recurrent_dqn import RecurrentDQN

__all__ = ["CnnLstmPolicy", "MlpLstmPolicy", "MultiInputLstmPolicy", "PermaKeyPolicy", "RecurrentDQN"]
