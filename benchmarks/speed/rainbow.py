"""Where a step of Rainbow on keypoints goes: milliseconds of emulator, detector, acting and updates.

    python -m benchmarks.speed rainbow --update --guide docs/rainbow.md

One thread. The parts take turns, so that whatever else the machine does slows all of them down; of each the median turn
counts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks.harness.command import run_command
from benchmarks.harness.markdown_blocks import renewed
from benchmarks.keypoints.run import shipped_name
from sb3_permakey import Rainbow, VecPermaKeyObservation, make_atari_env
from sb3_permakey.common.presets import RAINBOW_PEAKS
from sb3_permakey.files import write_atomically, write_json
from sb3_permakey.keypoints.device import freed_memory_kept
from sb3_permakey.provenance import provenance

GAMES = ("MsPacman", "BattleZone", "Seaquest", "Frostbite")
WARM_UP_STEPS = 400
PARTS = {"emulator": 60, "detector": 30, "acting": 60, "update": 20}
"""How often each part is done in a turn."""


@dataclass(frozen=True)
class RainbowSpeed:
    """Measure the parts of a step."""

    turns: int = 12
    """Turns of each part; the median counts."""
    out: Path = Path("benchmarks/results/rainbow_speed.json")
    """JSON file to write."""
    guide: Path | None = None
    """File in which to renew the table between its marks, <!-- rainbow-speed --> and <!-- /rainbow-speed -->."""


def parts_of(game: str) -> tuple[int, dict[str, Callable[[], Any]]]:
    """K, and the parts of a step of an agent that has begun to learn."""
    envs = DummyVecEnv([lambda: make_atari_env(game, seed=0)])
    keypoints = VecPermaKeyObservation(
        envs, shipped_name(game, "distilled", "clean"), readout="peaks", history=3, device="cpu"
    )
    settings = {**RAINBOW_PEAKS, "learning_starts": WARM_UP_STEPS // 2}
    model = Rainbow("PermaKeyPolicy", keypoints, seed=0, device="cpu", **settings)
    model.learn(WARM_UP_STEPS)
    random = np.random.default_rng(0)
    frames: list[np.ndarray] = []

    def play() -> None:
        frames.append(envs.step(random.integers(envs.action_space.n, size=1))[0])  # type: ignore[attr-defined, arg-type]

    def detect() -> None:
        keypoints.observer.observe(frames.pop(0), [False])

    return keypoints.detector.num_keypoints, {
        "emulator": play,
        # Frames that were just played, in the order of play, as streaming meets them.
        "detector": detect,
        "acting": lambda: model._sample_action(0),
        "update": lambda: model.train(1, model.batch_size),
    }


def measure(game: str, turns: int) -> dict[str, Any]:
    """Milliseconds of each part, and what a step takes with its updates."""
    count, parts = parts_of(game)
    took: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(turns):
        for name, part in parts.items():
            started = time.perf_counter()
            for _ in range(PARTS[name]):
                part()
            took[name].append((time.perf_counter() - started) / PARTS[name] * 1000)
    medians = {name: statistics.median(values) for name, values in took.items()}
    step = medians["emulator"] + medians["detector"] + medians["acting"]
    step += RAINBOW_PEAKS["gradient_steps"] * medians["update"]
    return {"keypoints": count, "ms": medians, "ms_of_a_step": step, "ms_of_each_turn": took}


def table(games: dict[str, dict[str, Any]]) -> list[str]:
    """The figures as a table of Markdown."""
    lines = ["| game | K | emulator | detector | acting | an update | a step with two | 100,000 steps, minutes |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for game, row in games.items():
        cells = [f"{row['ms'][name]:.1f}" for name in PARTS] + [f"{row['ms_of_a_step']:.1f}"]
        lines.append(f"| {game} | {row['keypoints']} | {' | '.join(cells)} | {row['ms_of_a_step'] * 100 / 60:.0f} |")
    return lines


@freed_memory_kept()
def main(config: RainbowSpeed) -> None:
    """Measure, print and write."""
    torch.set_num_threads(1)
    games = {game: measure(game, config.turns) for game in GAMES}
    write_json(config.out, {"threads": 1, "device": "cpu", "games": games, **provenance()})
    lines = table(games)
    print("\n".join([*lines, str(config.out)]))
    if config.guide is not None:
        write_atomically(config.guide, renewed(config.guide, **{"rainbow-speed": "\n".join(lines)}).encode())


def command() -> None:
    """The command line."""
    run_command("speed.rainbow", RainbowSpeed, main)


if __name__ == "__main__":
    command()
