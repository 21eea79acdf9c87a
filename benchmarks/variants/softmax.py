"""The package's checkpoints beside the same with the paper's softmax, which is per axis instead of over the whole map.

    python -m benchmarks.variants softmax --method transporter --games MsPacman BattleZone

All else is as in `benchmarks.keypoints`; a PermaKey's VAE and LSPN, which know no softmax, are the package's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from benchmarks.harness.command import run_command
from benchmarks.keypoints.run import NUM_KEYPOINTS, SHIPPED_SEED, KeypointsBenchmark, Run, pretrain_config, shipped_name
from sb3_permakey.files import write_json
from sb3_permakey.pretraining.trainer import pretrain
from sb3_permakey.provenance import provenance
from sb3_permakey.scores import ScoreConfig, score


@dataclass(frozen=True)
class SoftmaxBenchmark:
    """Train keypoints with the paper's softmax, and score them beside the package's."""

    method: Literal["permakey", "transporter"]
    """Whose keypoints."""
    games: tuple[str, ...]
    """Games of the paper; their frames are collected already."""
    folder: Path = Path("runs/softmax_variants")
    """Where frames (in "frames") and checkpoints are."""
    results: Path = Path("benchmarks/results")
    """Where the folder softmax_METHOD with the JSON files is; a game that has one is not trained again."""

    def __post_init__(self) -> None:
        for game in self.games:
            if game not in NUM_KEYPOINTS:
                raise ValueError(f"unknown game {game!r}: one of {', '.join(NUM_KEYPOINTS)}")


def train_with_the_papers_softmax(run: Run, folder: Path) -> Path:
    """Train the run's model, where there is none; path of its checkpoint."""
    config = pretrain_config(run, KeypointsBenchmark(folder=folder))
    if config.out.exists():
        return config.out
    frozen = Path(shipped_name(run.game, run.method, run.noise)) if run.method == "permakey" else None
    return pretrain(replace(config, model=replace(config.model, softmax="axes"), frozen_from=frozen))


def main(config: SoftmaxBenchmark) -> None:
    """Train, score and write what is missing, game by game."""
    for game in config.games:
        out = config.results / f"softmax_{config.method}" / f"{game.lower()}.json"
        if out.exists():
            continue
        run = Run(game, config.method, "clean", SHIPPED_SEED)
        checkpoints = {
            "per-axis softmax (paper)": str(train_with_the_papers_softmax(run, config.folder)),
            "plane softmax": shipped_name(run.game, run.method, run.noise),
        }
        variants = {
            name: score(ScoreConfig((checkpoint,), game))["scores"]["keypoints"]
            for name, checkpoint in checkpoints.items()
        }
        write_json(out, {"game": game, "config": {"seed": SHIPPED_SEED}, "variants": variants, **provenance()})
        print(f"{game}: F1 {json.dumps({name: round(each['f1']['value'], 3) for name, each in variants.items()})}")


def command() -> None:
    """The command line."""
    run_command("variants.softmax", SoftmaxBenchmark, main)


if __name__ == "__main__":
    command()
