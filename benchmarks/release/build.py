"""A game's teacher and student from its name alone: python -m benchmarks.release.build --games Pong Breakout

Frames of random play, a PermaKey trained as the package's, its student, and what both score where OCAtari knows the
game. One thread; what is done is not done again, and what was killed goes on. `python -m benchmarks.release` puts the
students of `benchmarks.distilled` into the package, these are left in their folder.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.harness.command import run_command
from benchmarks.keypoints.run import NUM_KEYPOINTS, KeypointsBenchmark, Run, pretrain_config
from sb3_permakey.files import write_json
from sb3_permakey.keypoints import ReadoutConfig
from sb3_permakey.play.collect import CollectConfig, collect
from sb3_permakey.pretraining.distillation import DistilConfig, distil
from sb3_permakey.pretraining.trainer import pretrain
from sb3_permakey.provenance import provenance
from sb3_permakey.scores import GroundTruthError, ScoreConfig, labelled_frames, score

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
    folder: Path = Path("runs/keypoints")
    """Where frames, teachers and students go."""


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


def build(game: str, config: BuildConfig) -> Path:
    """Build what is missing of a game; the student's path."""
    benchmark = KeypointsBenchmark(games=(game,), frames=config.frames, folder=config.folder)
    out = config.folder / f"{game.lower()}.build.json"
    count = config.num_keypoints or keypoints_of(game)
    training = pretrain_config(Run(game, "permakey", "clean", 0), benchmark, count)
    collect(CollectConfig(game=game, out=training.frames_folder, frames=config.frames))
    teacher = pretrain(training)
    student = distil(
        DistilConfig(
            teacher=str(teacher),
            frames=training.frames_folder,
            out=teacher.with_name(f"{game.lower()}-student.safetensors"),
        )
    )
    if not out.exists():
        scores = {}
        try:
            for name, checkpoint in (("teacher", teacher), ("student", student)):
                scored = score(ScoreConfig((str(checkpoint),), game, readout=ReadoutConfig("peaks")))
                scores[name] = scored["scores"]["keypoints"]
        except (ImportError, GroundTruthError) as error:
            print(f"{game} is not scored: {error}")
        write_json(out, {"game": game, "num_keypoints": count, "scores": scores, **provenance()})
    return student


def main(config: BuildConfig) -> None:
    """Build game after game."""
    torch.set_num_threads(1)
    for game in config.games:
        print(build(game, config), flush=True)


def command() -> None:
    """The command line."""
    run_command("release.build", BuildConfig, main)


if __name__ == "__main__":
    command()
