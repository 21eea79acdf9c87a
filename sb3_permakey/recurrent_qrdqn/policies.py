"""Policies of RecurrentQRDQN; their arguments are in sb3_permakey.common.recurrent_policies."""

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule

from sb3_permakey.common.recurrent_policies import CnnLstmMixin, MultiInputLstmMixin, PermaKeyMixin, RecurrentQPolicy


class RecurrentQRDQNPolicy(RecurrentQPolicy):
    """Quantiles of each action's return.

    :param observation_space: observation space
    :param action_space: action space
    :param lr_schedule: learning rate schedule
    :param n_quantiles: number of quantiles (Dabney et al. 2018 use 200)
    :param kwargs: the other arguments of RecurrentQPolicy
    """

    agent = "RecurrentQRDQN"

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        *,
        n_quantiles: int = 200,
        **kwargs: Any,
    ) -> None:
        kwargs = {"value_head": "quantile", **kwargs}
        super().__init__(observation_space, action_space, lr_schedule, n_quantiles=n_quantiles, **kwargs)


MlpLstmPolicy = RecurrentQRDQNPolicy


class CnnLstmPolicy(CnnLstmMixin, RecurrentQRDQNPolicy):
    """RecurrentQRDQNPolicy for images: NatureCNN unless another features extractor is given."""


class MultiInputLstmPolicy(MultiInputLstmMixin, RecurrentQRDQNPolicy):
    """RecurrentQRDQNPolicy for dicts of observations: CombinedExtractor unless another features extractor is given."""


class PermaKeyPolicy(PermaKeyMixin, RecurrentQRDQNPolicy):
    """RecurrentQRDQNPolicy for the keypoints of PermaKeyObservation.

    ``keypoint_encoder="gnn"`` (KeypointGNN, the default) or ``"cnn"`` (KeypointCNN, which needs ``keep_image=True`` in
    the wrapper), unless another features extractor is given.
    """
