"""Deep recurrent Q-learning for Stable-Baselines3."""

from typing import ClassVar

from stable_baselines3.common.policies import BasePolicy
from torch.nn import functional

from sb3_permakey.common.recurrent_q_learning import RecurrentQLearning, StepErrors
from sb3_permakey.common.targets import values_of
from sb3_permakey.common.windows import SequenceSamples
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

    def _step_errors(self, windows: SequenceSamples) -> StepErrors:
        online, targets = self._window_values(windows)
        q_values = values_of(windows.actions, online)[: len(targets)].squeeze(-1)
        targets = targets.squeeze(-1)
        losses = functional.smooth_l1_loss(q_values, targets, reduction="none")
        return StepErrors(losses, targets - q_values.detach(), q_values.detach())
