"""How far apart the keypoints of several pretraining seeds lie.

    python -m benchmarks.keypoints.stability
    python -m benchmarks.keypoints.report

Takes the checkpoints of `benchmarks.keypoints` that are still there, of seed 0 else the package's copy. What was scored
for as many seeds is not scored again.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import Literal

from benchmarks.harness.command import run_command
from benchmarks.keypoints.run import READINGS, KeypointsBenchmark, Run, trained_checkpoint
from sb3_permakey.files import write_json
from sb3_permakey.provenance import provenance
from sb3_permakey.scores import ScoreConfig, score


@dataclass(frozen=True)
class StabilityBenchmark(KeypointsBenchmark):
    """Measure how far apart the keypoints of several seeds lie."""

    noise: tuple[Literal["clean", "both"], ...] = ("clean", "both")
    """clean: the game's frames. both: with a horizontal and a vertical bar."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Pretraining seeds."""


def measure(runs: list[Run], benchmark: KeypointsBenchmark) -> str | None:
    """Score the stability of runs that differ in their seeds; a line about it, None when there is nothing to do."""
    found = {run.seed: trained_checkpoint(run, benchmark) for run in runs}
    checkpoints = {seed: str(checkpoint) for seed, checkpoint in found.items() if checkpoint is not None}
    first = runs[0]
    out = benchmark.results / "stability" / f"{first.game.lower()}-{first.method}-{first.noise}.json"
    seeds_before = json.loads(out.read_text())["seeds"] if out.exists() else []
    if len(checkpoints) < 2 or len(checkpoints) <= len(seeds_before):
        return None
    stability = {}
    for name, reading in READINGS[first.method].items():
        config = ScoreConfig(tuple(checkpoints.values()), first.game, distractor=first.distractor, readout=reading)
        scores = score(config)["scores"]
        stability[name] = {points: scores[points]["stability"] for points in ("keypoints", "random")}
    result = {
        "game": first.game,
        "method": first.method,
        "noise": first.noise,
        "seeds": list(checkpoints),
        "checkpoints": list(checkpoints.values()),
        "stability": stability,
        **provenance(),
    }
    write_json(out, result)
    pixels = {name: round(figures["keypoints"]["value"], 1) for name, figures in stability.items()}
    return f"{out.stem}: {pixels} px between seeds {', '.join(map(str, checkpoints))}"


def main(benchmark: KeypointsBenchmark) -> None:
    """Measure every game, method and kind of frames of which there are several checkpoints."""
    for noise, game, method in itertools.product(benchmark.noise, benchmark.games, benchmark.methods):
        line = measure([Run(game, method, noise, seed) for seed in benchmark.seeds], benchmark)
        if line:
            print(line, flush=True)


def command() -> None:
    """The command line."""
    run_command("keypoints.stability", StabilityBenchmark, main)


if __name__ == "__main__":
    command()
