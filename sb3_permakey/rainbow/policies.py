"""Policies of Rainbow; their further arguments are in sb3_permakey.common.recurrent_policies."""

from typing import Any, ClassVar

from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule

from sb3_permakey.common.memory import Memory
from sb3_permakey.common.recurrent_policies import CnnLstmMixin, MultiInputLstmMixin, PermaKeyMixin, RecurrentQPolicy
from sb3_permakey.encoders import KeypointEncoder


class RainbowPolicy(RecurrentQPolicy):
    """A distribution over each action's return, without a memory unless one is asked for.

    :param observation_space: observation space
    :param action_space: action space
    :param lr_schedule: learning rate schedule
    :param net_arch: units of the hidden layers between the features and the values; None for 256 on top of an encoder,
        and 256, 256 where features are the observations themselves
    :param rnn_type: the memory: "none", "lstm", "gru", "mingru", or a class
    :param shared_layers: whether state value and advantages have the hidden layers in common
    :param kwargs: the other arguments of RecurrentQPolicy
    """

    agent = "Rainbow"
    default_net_arch: ClassVar[list[int]] = [256]

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        *,
        net_arch: list[int] | None = None,
        rnn_type: Memory = "none",
        shared_layers: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=self.default_net_arch if net_arch is None else net_arch,
            rnn_type=rnn_type,
            shared_layers=shared_layers,
            **kwargs,
        )


class MlpPolicy(RainbowPolicy):
    """RainbowPolicy for vectors."""

    default_net_arch: ClassVar[list[int]] = [256, 256]


class CnnPolicy(CnnLstmMixin, RainbowPolicy):
    """RainbowPolicy for images: NatureCNN unless another features extractor is given."""


class MultiInputPolicy(MultiInputLstmMixin, RainbowPolicy):
    """RainbowPolicy for dicts of observations: CombinedExtractor unless another features extractor is given."""


class PermaKeyPolicy(PermaKeyMixin, RainbowPolicy):
    """RainbowPolicy for the keypoints of PermaKeyObservation.

    ``keypoint_encoder="pairs"`` (KeypointPairs, the default), ``"gnn"`` (KeypointGNN) or ``"cnn"`` (KeypointCNN, which
    needs ``keep_image=True`` in the wrapper), unless another features extractor is given.
    """

    default_keypoint_encoder: ClassVar[KeypointEncoder] = "pairs"
