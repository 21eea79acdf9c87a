"""Recurrent quantile regression DQN for Stable-Baselines3."""

from typing import ClassVar

from stable_baselines3.common.policies import BasePolicy

from sb3_permakey.common.recurrent_q_learning import RecurrentQLearning
from sb3_permakey.recurrent_qrdqn.policies import (
    CnnLstmPolicy,
    MlpLstmPolicy,
    MultiInputLstmPolicy,
    PermaKeyPolicy,
)


class RecurrentQRDQN(RecurrentQLearning):
    """Quantile regression DQN with an LSTM or GRU, which learns from windows of consecutive steps.

    QR-DQN: https://arxiv.org/abs/1710.10044. The arguments are listed in
    `sb3_permakey.common.recurrent_q_learning.RecurrentQLearning`; ``policy_kwargs=dict(n_quantiles=...)`` sets the
    number of quantiles.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpLstmPolicy": MlpLstmPolicy,
        "CnnLstmPolicy": CnnLstmPolicy,
        "MultiInputLstmPolicy": MultiInputLstmPolicy,
        "PermaKeyPolicy": PermaKeyPolicy,
    }
