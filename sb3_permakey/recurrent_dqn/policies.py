"""Policies of RecurrentDQN; their arguments are in sb3_permakey.common.recurrent_policies."""

from sb3_permakey.common.recurrent_policies import CnnLstmMixin, MultiInputLstmMixin, PermaKeyMixin, RecurrentQPolicy


class RecurrentDQNPolicy(RecurrentQPolicy):
    """One Q value for each action; arguments as in RecurrentQPolicy."""

    agent = "RecurrentDQN"


MlpLstmPolicy = RecurrentDQNPolicy


class CnnLstmPolicy(CnnLstmMixin, RecurrentDQNPolicy):
    """RecurrentDQNPolicy for images: NatureCNN unless another features extractor is given."""


class MultiInputLstmPolicy(MultiInputLstmMixin, RecurrentDQNPolicy):
    """RecurrentDQNPolicy for dicts of observations: CombinedExtractor unless another features extractor is given."""


class PermaKeyPolicy(PermaKeyMixin, RecurrentDQNPolicy):
    """RecurrentDQNPolicy for the keypoints of PermaKeyObservation.

    ``keypoint_encoder="gnn"`` (KeypointGNN, the default) or ``"cnn"`` (KeypointCNN, which needs ``keep_image=True`` in
    the wrapper), unless another features extractor is given.
    """
