"""`sb3-permakey score`: keypoints against a game's true objects."""

from __future__ import annotations

from sb3_permakey.commands.output import say
from sb3_permakey.scores import ScoreConfig, keypoint_score_table, score


def run(config: ScoreConfig) -> None:
    """Score keypoints."""
    result = score(config)
    if config.out:
        say(f"{config.out}: every score with its interval")
    if config.picture:
        say(f"{config.picture}: frames with objects and keypoints, and the scores")
    say(keypoint_score_table(result))
