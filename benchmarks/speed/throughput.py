"""How fast keypoints and agents are, in one table and one chart: python -m benchmarks.speed throughput

Detectors on recorded play of each game, agents on MsPacman beside SB3's, and how the keypoint agent scales with the
number of keypoints and of environments. On a machine with a GPU the agents run there, and so does a dense detector.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks.harness.command import run_command
from benchmarks.keypoints.run import NUM_KEYPOINTS
from benchmarks.speed import agents as agents_speed
from benchmarks.speed import detectors as detector_speed
from sb3_permakey import RecurrentDQN, VecPermaKeyObservation, make_atari_env
from sb3_permakey.files import write_atomically, write_json
from sb3_permakey.precision import keep_freed_memory
from sb3_permakey.pretraining.collect import CollectConfig, collect
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
            agents_speed.GAME.lower(),
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


def report(result: dict[str, Any]) -> str:
    """The results as Markdown."""
    machine, detection = result["machine"], result["detectors"]
    by_games: dict[str, dict[tuple[str, str, int], float]] = {}
    for row in detection["rows"]:
        key = (row["detector"], row["precision"], row["batch_size"])
        by_games.setdefault(row["game"], {})[key] = row["frames_per_s"]
    columns = list(dict.fromkeys(key for rows in by_games.values() for key in rows))
    lines = [
        "# Throughput",
        "",
        f"Written by `python -m benchmarks.throughput`: {result['threads']} thread(s) of {machine['cpu']}"
        + (f", {machine['gpu']}" if machine["gpu"] else "")
        + f", commit {result['commit']}.",
        "",
        "## Keypoints, frames per second",
        "",
        "| game | " + " | ".join(f"{name}, {precision}, {size}" for name, precision, size in columns) + " |",
        "|" + "---|" * (len(columns) + 1),
        *(f"| {game} | " + " | ".join(f"{rows[key]:.0f}" for key in columns) + " |" for game, rows in by_games.items()),
        "",
        "The last number of a column is the batch size. The authors' released code: "
        + ", ".join(f"{rate} in batches of {size}" for size, rate in detection["authors_frames_per_s"].items())
        + ". Matrix products on this machine: "
        + ", ".join(f"{rate:.0f} GFLOP/s in {name}" for name, rate in detection["matrix_product_gflops"].items())
        + ".",
        "",
        "## How far from the floor",
        "",
        "Milliseconds a frame, measured, and what the multiplications and additions that are left would take at the",
        "rate of the matrix product, and the bytes that must be moved at the rate of a copy, "
        f"{detection['copy_gbytes_per_s']:.0f} GB/s.",
        "Streaming computes what it has not seen before: a share of all frames is new as a whole; of a frame, on",
        "average, so many of the trunk's 7056 and 1764 cells see a change, and so many of the LSPN's 1764 and 441",
        "patches are new.",
        "",
        *floor_table(detection["rows"]),
        "",
        "## Agents on MsPacman",
        "",
        *agents_speed.table(result["agents"]),
        "",
        "## Scaling, steps per second of RecurrentDQN on peaks with learning",
        "",
    ]
    for name, speeds in result["scaling"].items():
        lines += [
            f"| {name} | " + " | ".join(str(count) for count in speeds) + " |",
            "|" + "---|" * (len(speeds) + 1),
            "| steps/s | " + " | ".join(f"{speed:.0f}" for speed in speeds.values()) + " |",
            "",
        ]
    return "\n".join(lines)


def floor_table(rows: list[dict[str, Any]]) -> list[str]:
    """Measured times beside their floors: dense in the largest batches, streaming one frame at a time."""
    lines = [
        "| game | detector | batch | measured | arithmetic | bytes | new frames | new cells | new patches |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    largest = max(row["batch_size"] for row in rows)
    for row in rows:
        if row["batch_size"] == (largest if row["detector"] == "dense" else 1):
            new = ["-", "-", "-"]
            if "new_frames_share" in row:
                counts = (row["new_cells_per_frame"], row["new_patches_per_frame"])
                new = [f"{row['new_frames_share']:.2f}", *(", ".join(f"{n:.0f}" for n in layers) for layers in counts)]
            lines.append(
                f"| {row['game']} | {row['detector']}, {row['precision']} | {row['batch_size']} "
                f"| {1000 / row['frames_per_s']:.2f} | {row['arithmetic_ms']:.2f} | {row['traffic_ms']:.2f} "
                f"| {' | '.join(new)} |"
            )
    return lines


def short_tables(result: dict[str, Any]) -> list[str]:
    """The README's two tables: keypoints of one frame at a time by game, and agents that learn."""
    kinds = (("dense", "bfloat16"), ("streaming", "float32"), ("streaming, peaks", "float32"))
    rates: dict[str, dict[tuple[str, str], float]] = {}
    for row in result["detectors"]["rows"]:
        if row["batch_size"] == 1:
            rates.setdefault(row["game"], {})[row["detector"], row["precision"]] = row["frames_per_s"]
    lines = ["| frames/s, one at a time | dense | streaming | streaming, peaks |", "|---|---|---|---|"]
    lines += [
        f"| {game} | " + " | ".join(f"{of_game[kind]:.0f}" for kind in kinds) + " |" for game, of_game in rates.items()
    ]
    lines += ["", "| agent steps/s, acting and learning | | of DQN's |", "|---|---|---|"]
    for name, agent in result["agents"].items():
        lines.append(f"| {name} | {agent['steps_per_s']:.0f} | {agent['ratio_to_dqn']:.2f} |")
    return lines


def draw(result: dict[str, Any]) -> Figure:
    """Three panels: detectors by game, agents, scaling."""
    figure = Figure(figsize=(15, 4.5), layout="constrained")
    of_detectors, of_agents, of_scaling = figure.subplots(1, 3)
    draw_detectors(of_detectors, result["detectors"])
    names = list(result["agents"])[::-1]
    of_agents.barh(names, [result["agents"][name]["steps_per_s"] for name in names], color="C0")
    of_agents.set(title="agents, acting and learning", xlabel="steps per second")
    for name, speeds in result["scaling"].items():
        of_scaling.plot([int(count) for count in speeds], list(speeds.values()), "o-", label=f"number of {name}")
    of_scaling.set(title="RecurrentDQN on peaks", xlabel="number", ylabel="steps per second", ylim=(0, None))
    of_scaling.legend()
    return figure


def draw_detectors(panel: Axes, detection: dict[str, Any]) -> None:
    """One frame at a time: a group of bars for each game."""
    rows = [row for row in detection["rows"] if row["batch_size"] == 1]
    games = list(dict.fromkeys(row["game"] for row in rows))
    kinds = list(dict.fromkeys((row["detector"], row["precision"]) for row in rows))
    for index, kind in enumerate(kinds):
        rates = [row["frames_per_s"] for row in rows if (row["detector"], row["precision"]) == kind]
        places = [place + (index - len(kinds) / 2) * 0.2 for place in range(len(games))]
        panel.bar(places, rates, width=0.2, label=", ".join(kind))
    panel.axhline(detection["authors_frames_per_s"][1], color="black", ls=":", label="authors' code")
    panel.set_xticks(range(len(games)), games, rotation=30, ha="right")
    panel.set(title="keypoints of one frame at a time", ylabel="frames per second")
    panel.set_ylim(top=1.4 * panel.get_ylim()[1])
    panel.legend(fontsize="small", loc="upper left")


def main(benchmark: ThroughputBenchmark) -> None:
    """Measure, write and draw."""
    keep_freed_memory()
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
    text = report(result)
    write_atomically(benchmark.out.with_suffix(".md"), text.encode())
    picture = io.BytesIO()
    draw(result).savefig(picture, dpi=100)
    write_atomically(benchmark.picture, picture.getvalue())
    print(text)


def command() -> None:
    """The command line."""
    run_command("speed.throughput", ThroughputBenchmark, main)


if __name__ == "__main__":
    command()
