"""Keypoints of PermaKey and of the Transporter on the paper's games, scored against true objects.

    python -m benchmarks.keypoints --games MsPacman Seaquest --seeds 0 1 2 --workers 2
    python -m benchmarks.keypoints.report

Each run collects frames where there are none, pretrains, scores every reading and writes one JSON file. A run that is
done is not done again, one that was killed goes on; a reading that a result lacks is scored of the run's checkpoint, or
of the package's copy of it. Both methods get the same frames and about the same computing time:
the steps below, chosen by the time of a step on one CPU thread.
"""

from __future__ import annotations

import itertools
import json
import shlex
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from benchmarks.harness.command import run_command
from benchmarks.harness.pool import Pool, print_outcomes
from sb3_permakey.envs.distractors import DistractorKind
from sb3_permakey.files import write_json
from sb3_permakey.keypoints import PermaKeyConfig, ReadoutConfig, checkpoint_exists
from sb3_permakey.keypoints.shipped import OF_TEACHER
from sb3_permakey.play.collect import CollectConfig, collect
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
READINGS = {
    "permakey": {
        "pointnet": ReadoutConfig("pointnet"),
        "peaks": ReadoutConfig("peaks"),
        "contrast": ReadoutConfig("peaks", surround_px=18.0),
        "steady": ReadoutConfig("peaks", surround_px=18.0, centroid_px=10.0),
    },
    "transporter": {"pointnet": ReadoutConfig("pointnet")},
}
"""How each method's keypoints are read."""
SHIPPED_SEED = 0
"""Seed of the checkpoints that come with the package."""
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
    pool: Annotated[Pool, tyro.conf.arg(name="")] = field(default_factory=lambda: Pool(workers=1))
    """Where runs run, and how many at once."""


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


def shipped_name(game: str, method: str, noise: str) -> str:
    """Name of a run's checkpoint in the package; a PermaKey's is a teacher's, whose student has the plain one."""
    ending = {"permakey": OF_TEACHER, "distilled": ""}.get(method, f"-{method}")
    return f"{game.lower()}{'' if noise == 'clean' else '-noisy'}{ending}"


def pretrain_config(run: Run, benchmark: KeypointsBenchmark, num_keypoints: int | None = None) -> PretrainConfig:
    """Settings of the run's pretraining, with the paper's number of keypoints or another."""
    return PretrainConfig(
        frames=benchmark.folder / "frames" / run.game.lower(),
        out=benchmark.folder / f"{run.name}.safetensors",
        method=run.method,
        model=PermaKeyConfig(num_keypoints=num_keypoints or NUM_KEYPOINTS[run.game], **MODELS[run.method]),
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


def trained_checkpoint(run: Run, benchmark: KeypointsBenchmark) -> Path | str | None:
    """A finished run's checkpoint: its own, or, where that has gone, the name of the package's; None without either."""
    path = pretrain_config(run, benchmark).out
    if path.exists():
        return path
    name = shipped_name(run.game, run.method, run.noise)
    return name if run.seed == SHIPPED_SEED and checkpoint_exists(name) else None


def missing_readings(run: Run, benchmark: KeypointsBenchmark) -> list[str]:
    """The readings that the run's result, if there is one, does not hold."""
    out = benchmark.results / f"{run.name}.json"
    result = json.loads(out.read_text()) if out.exists() else {}
    scored, by_category = result.get("scores", {}), result.get("categories", {})
    return [name for name in READINGS[run.method] if name not in scored or name not in by_category]


def is_left(run: Run, benchmark: KeypointsBenchmark) -> bool:
    """Whether there is anything to train, or anything to score of a checkpoint that is still there."""
    if not (benchmark.results / f"{run.name}.json").exists():
        return True
    return bool(missing_readings(run, benchmark)) and trained_checkpoint(run, benchmark) is not None


def pretrain(run: Run, benchmark: KeypointsBenchmark) -> dict[str, Any]:
    """Train the run's checkpoint; its result without scores."""
    config = pretrain_config(run, benchmark)
    training = Pretraining(config)
    training.run()
    return {
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
        "categories": {},
        **provenance(),
    }


def do_run(run: Run, benchmark: KeypointsBenchmark) -> str:
    """Pretrain where there is no result, score what it lacks, write it; a line about it.

    "categories" has the scores of each category of objects by reading, and once those of random points and grid. What
    is scored later than the rest, of whichever checkpoint was left, says so under "scored_later".
    """
    started = time.monotonic()
    out = benchmark.results / f"{run.name}.json"
    later = out.exists()
    result = json.loads(out.read_text()) if later else pretrain(run, benchmark)
    result.setdefault("categories", {})
    checkpoint = str(trained_checkpoint(run, benchmark))
    for name in missing_readings(run, benchmark):
        scored = score(
            ScoreConfig(
                checkpoints=(checkpoint,),
                game=run.game,
                distractor=run.distractor,
                picture=benchmark.folder / f"{run.name}-{name}.png",
                readout=READINGS[run.method][name],
            )
        )
        part = f"{name}, categories" if name in result["scores"] else name
        result["scores"].setdefault(name, scored["scores"])
        result["categories"] |= {
            name: scored["categories"]["keypoints"],
            **{points: scored["categories"][points] for points in ("random", "grid")},
        }
        result["frames_scored"] = scored["frames"]
        result["bars_area_share"] = scored["bars_area_share"]
        result["objects_per_frame"] = scored["objects_per_frame"]
        if later:
            result.setdefault("scored_later", {})[part] = {"checkpoint": checkpoint, **provenance()}
    write_json(out, result)
    f1 = {name: round(scores["keypoints"]["f1"]["value"], 3) for name, scores in result["scores"].items()}
    return f"{run.name}: F1 {f1}, {(time.monotonic() - started) / 60:.1f} min"


def main(benchmark: KeypointsBenchmark) -> None:
    """Do the runs that are not done, by seed, noise and game, both methods side by side."""
    runs = [
        Run(game, method, noise, seed)
        for seed, noise, game, method in itertools.product(
            benchmark.seeds, benchmark.noise, benchmark.games, benchmark.methods
        )
    ]
    todo = [run for run in runs if is_left(run, benchmark)]
    to_train = [run for run in todo if not (benchmark.results / f"{run.name}.json").exists()]
    for game in dict.fromkeys(run.game for run in to_train):
        collect(CollectConfig(game=game, out=benchmark.folder / "frames" / game.lower(), frames=benchmark.frames))
    outcomes = benchmark.pool.run(partial(do_run, benchmark=benchmark), todo)
    print_outcomes(outcomes, lambda run: run.name)


def command() -> None:
    """The command line."""
    run_command("keypoints", KeypointsBenchmark, main)


if __name__ == "__main__":
    command()
