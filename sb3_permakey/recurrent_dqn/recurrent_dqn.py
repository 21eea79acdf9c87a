"""Deep recurrent Q-learning for Stable-Baselines3."""

from typing import ClassVar

from stable_baselines3.common.policies import BasePolicy

from sb3_permakey.common.recurrent_q_learning import RecurrentQLearning
from sb3_permakey.recurrent_dqn.policies import (
    CnnLstmPolicy,
    MlpLstmPolicy,
    MultiInputLstmPolicy,
    PermaKeyPolicy,
)


class RecurrentDQN(RecurrentQLearning):
    """Deep Q-learning with an LSTM or GRU, which learns from windows of consecutive steps.

    DRQN: https://arxiv.org/abs/1507.06527. Double Q-learning: https://arxiv.org/abs/1509.06461. The arguments are
    listed in `sb3_permakey.common.recurrent_q_learning.RecurrentQLearning`.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpLstmPolicy": MlpLstmPolicy,
        "CnnLstmPolicy": CnnLstmPolicy,
        "MultiInputLstmPolicy": MultiInputLstmPolicy,
        "PermaKeyPolicy": PermaKeyPolicy,
    }
