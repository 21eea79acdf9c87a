"""From frames to a keypoint checkpoint; the frames' own functions and `pretrain`, which may collect them, come along.

The modules here know nothing of those: what plays and what joins is imported where somebody asks for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sb3_permakey.pretraining.config import PretrainConfig, StrongPretrainConfig

if TYPE_CHECKING:
    from sb3_permakey.commands.pretrain import pretrain
    from sb3_permakey.play.collect import CollectConfig, collect
    from sb3_permakey.play.own_environments import record_frames

__all__ = ["CollectConfig", "PretrainConfig", "StrongPretrainConfig", "collect", "pretrain", "record_frames"]

PLACES = {
    "CollectConfig": "sb3_permakey.play.collect",
    "collect": "sb3_permakey.play.collect",
    "pretrain": "sb3_permakey.commands.pretrain",
    "record_frames": "sb3_permakey.play.own_environments",
}


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(PLACES[name]), name)
