"""Students of games that the paper does not have, from a game's name alone.

    python -m benchmarks.release.build --games Pong Breakout
    python -m benchmarks.release --update

Frames of random play, a teacher, its student, and what both score where OCAtari knows the game, as JSON files of
`benchmarks.distilled`, from which the second command takes students into the package. Of such a teacher peaks alone are
read, so that its VAE and LSPN are trained and its PointNet is not, and it stays in its folder. One thread; what is done
is not done again, and what was killed goes on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.distilled.run import DistilledBenchmark, Run, do_run
from benchmarks.harness.command import run_command
from benchmarks.keypoints.run import NUM_KEYPOINTS, KeypointsBenchmark, pretrain_config
from benchmarks.keypoints.run import Run as KeypointsRun
from sb3_permakey.play.collect import CollectConfig, collect
from sb3_permakey.pretraining.trainer import pretrain
from sb3_permakey.scores import GroundTruthError, labelled_frames

FEWEST, MOST, UNKNOWN = 5, 25, 10
"""Keypoints of a game that the paper does not have: within these bounds, and where nobody knows its objects."""
COUNTED_FRAMES = 100


@dataclass(frozen=True)
class BuildConfig:
    """Build a teacher and a student for each game."""

    games: tuple[str, ...]
    """Games, e.g. Pong."""
    num_keypoints: int | None = None
    """Keypoints; empty: the paper's, else as many as the game shows objects in the mean, rounded up, from 5 to 25; 10
    where OCAtari does not know the game."""
    frames: int = 16_000
    """Frames of random play to collect for each game."""
    steps: int = 500
    """Steps of a teacher's VAE and LSPN."""
    folder: Path = Path("runs/keypoints")
    """Where frames and teachers go."""
    students: Path = Path("runs/distilled")
    """Where students go."""
    results: Path = Path("benchmarks/results/distilled")
    """Where the JSON files go."""


def keypoints_of(game: str) -> int:
    """How many keypoints a game gets, by the rule of `BuildConfig.num_keypoints`."""
    if game in NUM_KEYPOINTS:
        return NUM_KEYPOINTS[game]
    try:
        labelled = labelled_frames(game, episodes=5, frames=COUNTED_FRAMES)
    except (ImportError, GroundTruthError):
        return UNKNOWN
    objects = sum(len(first.categories) for first, _ in labelled.objects) / len(labelled.objects)
    return min(max(math.ceil(objects), FEWEST), MOST)


def build(game: str, config: BuildConfig) -> str:
    """Build what is missing of a game; a line about it."""
    recipe = KeypointsBenchmark(games=(game,), frames=config.frames, folder=config.folder)
    training = pretrain_config(
        KeypointsRun(game, "permakey", "clean", 0), recipe, config.num_keypoints or keypoints_of(game)
    )
    training = replace(training, max_steps=config.steps, pointnet_steps=1, score=False)
    collect(CollectConfig(game=game, out=training.frames_folder, frames=config.frames))
    students = DistilledBenchmark(
        frames=config.frames,
        frames_folder=training.frames_folder.parent,
        folder=config.students,
        results=config.results,
    )
    return do_run(Run(game, "clean", 0, trained=pretrain(training)), students)


def main(config: BuildConfig) -> None:
    """Build game after game."""
    torch.set_num_threads(1)
    for game in config.games:
        if (config.results / f"{Run(game, 'clean', 0).name}.json").exists():
            continue
        print(build(game, config), flush=True)


def command() -> None:
    """The command line."""
    run_command("release.build", BuildConfig, main)


if __name__ == "__main__":
    command()
