"""How fast keypoints and agents are, in one table and one chart: python -m benchmarks.speed throughput

Detectors on recorded play of each game, agents on MsPacman beside SB3's, and how the keypoint agent scales with the
number of keypoints and of environments. On a machine with a GPU the agents run there, and so does a dense detector.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks.harness.command import run_command
from benchmarks.keypoints.run import NUM_KEYPOINTS, shipped_name
from benchmarks.speed import agents as agents_speed
from benchmarks.speed import detectors as detector_speed
from benchmarks.speed.report import ReportConfig, write_report
from sb3_permakey import RecurrentDQN, VecPermaKeyObservation, make_atari_env
from sb3_permakey.files import write_json
from sb3_permakey.keypoints.device import freed_memory_kept
from sb3_permakey.play.collect import CollectConfig, collect
from sb3_permakey.provenance import provenance

KEYPOINT_COUNTS, ENV_COUNTS = (5, 10, 15, 20, 25), (1, 2, 4, 8, 16)
FRAMES = 12_000
"""Frames of play of each game: at least three episodes of the longest, a warm-up and all rounds."""


@dataclass(frozen=True)
class ThroughputBenchmark:
    """Measure detectors, agents and scaling; write JSON, a table and a chart."""

    games: tuple[str, ...] = tuple(NUM_KEYPOINTS)
    """Games of the detectors."""
    turn_s: float = 4.0
    """Seconds of an agent's turn."""
    turns: int = 6
    """Turns of each agent; the median counts."""
    rounds: int = 10
    """Times that each detector is timed."""
    threads: int = 2
    """CPU threads."""
    device: str = "auto"
    """Where the agents are."""
    frames: Path = Path("runs/throughput")
    """Where the games' play is recorded, once."""
    out: Path = Path("benchmarks/results/throughput.json")
    """JSON file to write, with a Markdown file of the same name."""
    picture: Path = Path("docs/throughput.png")
    """Chart to draw."""


def detectors(benchmark: ThroughputBenchmark) -> dict[str, Any]:
    """Frames per second of the detectors on every game."""
    for game in benchmark.games:
        collect(CollectConfig(game=game, out=benchmark.frames / game.lower(), frames=FRAMES))
    config = detector_speed.SpeedBenchmark(
        frames=benchmark.frames,
        games=tuple(game.lower() for game in benchmark.games),
        rounds=benchmark.rounds,
        threads=benchmark.threads,
    )
    return detector_speed.measure(config)


def scaling(benchmark: ThroughputBenchmark) -> dict[str, dict[int, float]]:
    """Steps per second of RecurrentDQN on peaks, learning included, by number of keypoints and of environments."""

    def speed(keypoints: int, envs: int) -> float:
        venv = VecPermaKeyObservation(
            DummyVecEnv([partial(make_atari_env, agents_speed.GAME, seed=seed) for seed in range(envs)]),
            shipped_name(agents_speed.GAME, "permakey", "clean"),
            readout="peaks",
            num_keypoints=keypoints,
            device=benchmark.device,
        )
        agent = agents_speed.off_policy(RecurrentDQN, "PermaKeyPolicy", venv, benchmark.device, gradient_steps=envs)
        agents_speed.learn(agent, agents_speed.WARM_UP_STEPS)
        return agents_speed.turn(agent, benchmark.turn_s)

    return {
        "keypoints": {count: speed(count, 1) for count in KEYPOINT_COUNTS},
        "environments": {count: speed(7, count) for count in ENV_COUNTS},
    }


@freed_memory_kept()
def main(benchmark: ThroughputBenchmark) -> None:
    """Measure, write and draw."""
    torch.set_num_threads(benchmark.threads)
    speed = agents_speed.SpeedBenchmark(
        turn_s=benchmark.turn_s, turns=benchmark.turns, threads=benchmark.threads, device=benchmark.device
    )
    result = {
        "detectors": detectors(benchmark),
        "agents": agents_speed.measure(speed),
        "scaling": scaling(benchmark),
        "threads": benchmark.threads,
        "device": benchmark.device,
        **provenance(),
    }
    write_json(benchmark.out, result)
    # Through JSON, so that what is drawn is what will be read.
    write_report(ReportConfig(benchmark.out, benchmark.out.with_suffix(".md"), benchmark.picture))


def command() -> None:
    """The command line."""
    run_command("speed.throughput", ThroughputBenchmark, main)


if __name__ == "__main__":
    command()
