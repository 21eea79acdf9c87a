"""Is the Transporter held back by the softmax that the benchmark gives it? The paper's beside it, per axis.

    python -m benchmarks.transporter_variants --games MsPacman BattleZone

The paper's is trained as `benchmarks.keypoints` trains the other one, which is the package's checkpoint.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from benchmarks.keypoints import NUM_KEYPOINTS, SHIPPED_SEED, KeypointsBenchmark, Run, pretrain_config, shipped_name
from sb3_permakey.files import write_json
from sb3_permakey.pretraining.trainer import pretrain
from sb3_permakey.provenance import provenance
from sb3_permakey.scores import ScoreConfig, score


@dataclass(frozen=True)
class TransporterVariants:
    """Train the Transporter with the paper's softmax, and score it beside the package's."""

    games: tuple[str, ...]
    """Games of the paper; their frames are collected already."""
    folder: Path = Path("runs/transporter_variants")
    """Where frames (in "frames") and checkpoints are."""
    results: Path = Path("benchmarks/results/transporter_variants")
    """Where the JSON files go; a game that has one is not trained again."""

    def __post_init__(self) -> None:
        for game in self.games:
            if game not in NUM_KEYPOINTS:
                raise ValueError(f"unknown game {game!r}: one of {', '.join(NUM_KEYPOINTS)}")


def train_with_the_papers_softmax(game: str, folder: Path) -> Path:
    """Train a Transporter on clean frames, where there is none; path of its checkpoint."""
    run = Run(game, "transporter", "clean", SHIPPED_SEED)
    config = pretrain_config(run, KeypointsBenchmark(folder=folder))
    return config.out if config.out.exists() else pretrain(replace(config, model=replace(config.model, softmax="axes")))


def main(config: TransporterVariants) -> None:
    """Train, score and write what is missing, game by game."""
    for game in config.games:
        out = config.results / f"{game.lower()}.json"
        if out.exists():
            continue
        checkpoints = {
            "per-axis softmax (paper)": str(train_with_the_papers_softmax(game, config.folder)),
            "plane softmax": shipped_name(game, "transporter", "clean"),
        }
        variants = {
            name: score(ScoreConfig((checkpoint,), game))["scores"]["keypoints"]
            for name, checkpoint in checkpoints.items()
        }
        write_json(out, {"game": game, "config": {"seed": SHIPPED_SEED}, "variants": variants, **provenance()})
        print(f"{game}: F1 {json.dumps({name: round(each['f1']['value'], 3) for name, each in variants.items()})}")


if __name__ == "__main__":
    main(tyro.cli(TransporterVariants))
