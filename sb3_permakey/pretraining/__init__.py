"""From frames to a keypoint checkpoint."""

from sb3_permakey.play.collect import CollectConfig, collect
from sb3_permakey.play.own_environments import record_frames
from sb3_permakey.pretraining.config import PretrainConfig, StrongPretrainConfig
from sb3_permakey.pretraining.trainer import pretrain

__all__ = ["CollectConfig", "PretrainConfig", "StrongPretrainConfig", "collect", "pretrain", "record_frames"]
