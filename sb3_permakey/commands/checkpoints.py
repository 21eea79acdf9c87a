"""`sb3-permakey checkpoints`: what comes with the package."""

from __future__ import annotations

from dataclasses import dataclass

from sb3_permakey.commands.output import say
from sb3_permakey.keypoints import checkpoint_table, shipped_checkpoints


@dataclass(frozen=True)
class CheckpointsConfig:
    """List the keypoint checkpoints that come with the package, with their scores."""


def run(config: CheckpointsConfig) -> None:
    """List the checkpoints that come with the package."""
    say(checkpoint_table(shipped_checkpoints()))
