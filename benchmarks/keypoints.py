"""Keypoints of PermaKey and of the Transporter on the paper's games, scored against true objects.

    python -m benchmarks.keypoints --games MsPacman Seaquest --seeds 0 1 2 --workers 2
    python -m benchmarks.keypoints_report

Each run collects frames where there are none, pretrains, scores every readout and writes one JSON file. A run that is
done is not done again, one that was killed goes on. Both methods get the same frames and about the same computing time:
the steps below, chosen by the time of a step on one CPU thread.
"""

from __future__ import annotations

import itertools
import shlex
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from benchmarks.backends import in_processes, in_this_process, print_outcomes
from sb3_permakey.distractors import DistractorKind
from sb3_permakey.files import write_json
from sb3_permakey.keypoints import PermaKeyConfig
from sb3_permakey.pretraining.collect import CollectConfig, collect
from sb3_permakey.pretraining.config import PretrainConfig
from sb3_permakey.pretraining.trainer import Pretraining
from sb3_permakey.provenance import provenance
from sb3_permakey.scores import ScoreConfig, score

NUM_KEYPOINTS = {
    "BattleZone": 8,
    "Seaquest": 10,
    "MsPacman": 7,
    "Frostbite": 20,
    "SpaceInvaders": 25,
    "Enduro": 10,
    "MontezumaRevenge": 12,
}
"""The paper's K of each game; Enduro's and MontezumaRevenge's are read off its figures."""
RECIPES: dict[str, dict[str, Any]] = {
    "permakey": {
        "schedule": "staged",
        "lspn_stride": 4,
        "max_steps": 1500,
        "pointnet_steps": 8000,
    },
    "transporter": {"max_steps": 4000},
}
"""Training settings of each method beside the paper's: some 40 minutes each of one CPU thread."""
MODELS: dict[str, dict[str, Any]] = {
    "permakey": {"softmax": "plane", "map_power": 0.5},
    "transporter": {"softmax": "plane"},
}
"""Model settings of each method beside the paper's; what they change is in benchmarks/results/variants.md."""
READOUTS: dict[str, tuple[Literal["pointnet", "peaks"], ...]] = {
    "permakey": ("pointnet", "peaks"),
    "transporter": ("pointnet",),
}
RESULTS = Path("benchmarks/results/keypoints")


@dataclass(frozen=True)
class KeypointsBenchmark:
    """Pretrain and score keypoints."""

    games: tuple[str, ...] = tuple(NUM_KEYPOINTS)
    """Games of the paper."""
    methods: tuple[Literal["permakey", "transporter"], ...] = ("permakey", "transporter")
    """Methods."""
    noise: tuple[Literal["clean", "both"], ...] = ("clean",)
    """clean: the game's frames. both: with a horizontal and a vertical bar."""
    seeds: tuple[int, ...] = (0,)
    """Pretraining seeds."""
    frames: int = 16_000
    """Frames of random play to collect for each game."""
    folder: Path = Path("runs/keypoints")
    """Where frames and checkpoints go."""
    results: Path = RESULTS
    """Where the JSON files go."""
    workers: int = 1
    """Runs at once, each a process of one CPU thread where there are several."""


@dataclass(frozen=True)
class Run:
    """One pretraining run."""

    game: str
    method: Literal["permakey", "transporter"]
    noise: Literal["clean", "both"]
    seed: int

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"{self.game.lower()}-{self.method}-{self.noise}-{self.seed}"

    @property
    def distractor(self) -> DistractorKind | None:
        """The bars on its frames."""
        return None if self.noise == "clean" else self.noise


def pretrain_config(run: Run, benchmark: KeypointsBenchmark) -> PretrainConfig:
    """Settings of the run's pretraining."""
    return PretrainConfig(
        frames=benchmark.folder / "frames" / run.game.lower(),
        out=benchmark.folder / f"{run.name}.safetensors",
        method=run.method,
        model=PermaKeyConfig(num_keypoints=NUM_KEYPOINTS[run.game], **MODELS[run.method]),
        distractor=run.distractor,
        seed=run.seed,
        **RECIPES[run.method],
    )


def training_command(run: Run, config: PretrainConfig) -> str:
    """The command line that trains the same checkpoint."""
    flags = {
        "frames": config.frames,
        "out": config.out,
        "method": run.method,
        "num_keypoints": config.model.num_keypoints,
        "seed": run.seed,
        **MODELS[run.method],
        **({"distractor": run.distractor} if run.distractor else {}),
        **RECIPES[run.method],
    }
    parts = [part for name, value in flags.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    return shlex.join(["sb3-permakey", "pretrain", *parts])


def do_run(run: Run, benchmark: KeypointsBenchmark, threads: int | None = None) -> str:
    """Pretrain, score, write the result; a line about it."""
    if threads:
        torch.set_num_threads(threads)
    out = benchmark.results / f"{run.name}.json"
    config = pretrain_config(run, benchmark)
    started = time.monotonic()
    training = Pretraining(config)
    checkpoint = training.run()
    result = {
        "game": run.game,
        "method": run.method,
        "noise": run.noise,
        "seed": run.seed,
        "num_keypoints": config.model.num_keypoints,
        "training": {
            "command": training_command(run, config),
            "minutes": training.progress.elapsed_s / 60,
            "threads": torch.get_num_threads(),
            "settings": {**RECIPES[run.method], **MODELS[run.method]},
        },
        "scores": {},
        **provenance(),
    }
    for readout in READOUTS[run.method]:
        scored = score(
            ScoreConfig(
                checkpoints=(str(checkpoint),),
                game=run.game,
                distractor=run.distractor,
                readout=readout,
                picture=benchmark.folder / f"{run.name}-{readout}.png",
            )
        )
        result["scores"][readout] = scored["scores"]
        result["frames_scored"] = scored["frames"]
        result["bars_area_share"] = scored["bars_area_share"]
    write_json(out, result)
    f1 = {readout: round(scores["keypoints"]["f1"]["value"], 3) for readout, scores in result["scores"].items()}
    return f"{run.name}: F1 {f1}, {(time.monotonic() - started) / 60:.1f} min"


def main(benchmark: KeypointsBenchmark) -> None:
    """Do the runs that are not done, by seed, noise and game, both methods side by side."""
    runs = [
        Run(game, method, noise, seed)
        for seed, noise, game, method in itertools.product(
            benchmark.seeds, benchmark.noise, benchmark.games, benchmark.methods
        )
    ]
    todo = [run for run in runs if not (benchmark.results / f"{run.name}.json").exists()]
    for game in dict.fromkeys(run.game for run in todo):
        collect(CollectConfig(game=game, out=benchmark.folder / "frames" / game.lower(), frames=benchmark.frames))
    if benchmark.workers == 1:
        outcomes = in_this_process(partial(do_run, benchmark=benchmark), todo)
    else:
        outcomes = in_processes(partial(do_run, benchmark=benchmark, threads=1), todo, benchmark.workers, threads=1)
    print_outcomes(outcomes, lambda run: run.name)


if __name__ == "__main__":
    main(tyro.cli(KeypointsBenchmark))
