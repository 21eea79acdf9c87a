"""Tables and chart of how fast keypoints and agents are.

python -m benchmarks.speed.report --update --readme README.md --page docs/results.md
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.harness.command import run_command
from benchmarks.harness.markdown_blocks import filled, renewed
from benchmarks.harness.schema import ResultSchema
from benchmarks.harness.tables import table
from benchmarks.speed import agents as agents_speed
from sb3_permakey.files import write_atomically

NOTES = Path(__file__).with_name("notes.md")
MEASURED = {"threads": int, "device": str}
SCHEMAS = (
    ResultSchema("throughput.json", {**MEASURED, "detectors": dict, "agents": dict, "scaling": dict}),
    ResultSchema("agents_speed.json", {**MEASURED, "game": str, "agents": dict}),
    ResultSchema("memory_speed.json", {**MEASURED, "batch": int, "units": int, "windows": dict}),
    ResultSchema("rainbow_speed.json", {**MEASURED, "games": dict}),
    ResultSchema("noisy_speed.json", {**MEASURED, "games": dict}),
    ResultSchema("cnn_speed.json", {**MEASURED, "game": str, "filters": int, "ms": dict}),
    ResultSchema("gpu_speed.json", {**MEASURED, "card": str, "pretraining_ms": dict, "agents": dict, "seconds": float}),
    ResultSchema("updates/*.json", {**MEASURED, "order": int, "agents": dict}),
    ResultSchema(
        "pretraining_step.json",
        {**MEASURED, "step_s": dict, "matrix_product_gflops": float, "batch_size": int, "precision": str},
    ),
)
README_GAME = "mspacman"
README_AGENTS = (agents_speed.REFERENCE, "RecurrentDQN, pixels, 4 windows of 8", "RecurrentDQN, PKey-GNN")
DETECTORS = (("dense", "bfloat16"), ("streaming", "float32"), ("streaming, peaks", "float32"))
"""Of which short tables tell."""


@dataclass(frozen=True)
class ReportConfig:
    """Write the tables and draw the chart."""

    results: Path = Path("benchmarks/results/throughput.json")
    """What `benchmarks.speed throughput` measured."""
    table: Path = Path("benchmarks/results/throughput.md")
    """Markdown file to write."""
    picture: Path = Path("docs/throughput.png")
    """Chart to draw."""
    readme: Path | None = None
    """File in which to renew the short table between its marks, <!-- speed --> and <!-- /speed -->."""
    page: Path | None = None
    """File in which to renew two tables between their marks, <!-- throughput --> and <!-- /throughput -->."""


def report(result: dict[str, Any]) -> str:
    """The results as Markdown."""
    machine, detection = result["machine"], result["detectors"]
    by_games: dict[str, dict[tuple[str, str, int], float]] = {}
    for row in detection["rows"]:
        key = (row["detector"], row["precision"], row["batch_size"])
        by_games.setdefault(row["game"], {})[key] = row["frames_per_s"]
    columns = list(dict.fromkeys(key for rows in by_games.values() for key in rows))
    titles = ["game", *(f"{name}, {precision}, {size}" for name, precision, size in columns)]
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    authors = (f"{rate} in batches of {size}" for size, rate in detection["authors_frames_per_s"].items())
    products = (f"{rate:.0f} GFLOP/s in {name}" for name, rate in detection["matrix_product_gflops"].items())
    return filled(
        NOTES,
        machine=f"{result['threads']} thread(s) of {machine['cpu']}{gpu}",
        commit=result["commit"],
        keypoints=table(
            titles,
            [
                [game, *(f"{rows[key]:.0f}" if key in rows else "-" for key in columns)]
                for game, rows in by_games.items()
            ],
        ),
        authors=", ".join(authors),
        products=", ".join(products),
        copy=f"{detection['copy_gbytes_per_s']:.0f}",
        floors=floor_table(detection["rows"]),
        agents=agents_speed.table(result["agents"]),
        scaling_keypoints=scaling_table("keypoints", result["scaling"]["keypoints"]),
        scaling_environments=scaling_table("environments", result["scaling"]["environments"]),
    )


def scaling_table(name: str, speeds: dict[str, float]) -> list[str]:
    """Steps per second by number."""
    return table([name, *map(str, speeds)], [["steps/s", *(f"{speed:.0f}" for speed in speeds.values())]])


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
    """The page of results has two tables: keypoints of one frame at a time by game, and agents that learn."""
    rates: dict[str, dict[tuple[str, str], float]] = {}
    for row in result["detectors"]["rows"]:
        if row["batch_size"] == 1:
            rates.setdefault(row["game"], {})[row["detector"], row["precision"]] = row["frames_per_s"]
    lines = ["| frames/s, one at a time | dense | streaming | streaming, peaks |", "|---|---|---|---|"]
    lines += [
        f"| {game} | " + " | ".join(f"{of_game[kind]:.0f}" for kind in DETECTORS) + " |"
        for game, of_game in rates.items()
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
        of_kind = [row for row in rows if (row["detector"], row["precision"]) == kind]
        places = [games.index(row["game"]) + (index - len(kinds) / 2) * 0.2 for row in of_kind]
        panel.bar(places, [row["frames_per_s"] for row in of_kind], width=0.2, label=", ".join(kind))
    panel.axhline(detection["authors_frames_per_s"]["1"], color="black", ls=":", label="authors' code")
    panel.set_xticks(range(len(games)), games, rotation=30, ha="right")
    panel.set(title="keypoints of one frame at a time", ylabel="frames per second")
    panel.set_ylim(top=1.4 * panel.get_ylim()[1])
    panel.legend(fontsize="small", loc="upper left")


def readme_table(result: dict[str, Any]) -> list[str]:
    """The README's table: keypoints of one frame at a time, and agents that act and learn, on MsPacman."""
    authors = result["detectors"]["authors_frames_per_s"]["1"]
    rates = {
        (row["detector"], row["precision"]): row["frames_per_s"]
        for row in result["detectors"]["rows"]
        if row["game"] == README_GAME and row["batch_size"] == 1
    }
    rows = [["keypoints, the authors' released code", f"{authors} frames", "1.0"]]
    rows += [
        [f"keypoints, {kind[0]}", f"{rates[kind]:.0f} frames", f"{rates[kind] / authors:.1f}"] for kind in DETECTORS
    ]
    for name in README_AGENTS:
        agent = result["agents"][name]
        rows.append([name, f"{agent['steps_per_s']:.0f} steps", f"{agent['ratio_to_dqn']:.2f}"])
    return table(["", "a second", "of the authors', of DQN's"], rows)


def write_report(config: ReportConfig) -> None:
    """Write tables and chart."""
    result = json.loads(config.results.read_text())
    texts = {config.table: report(result)}
    if config.readme is not None:
        texts[config.readme] = renewed(config.readme, speed="\n".join(readme_table(result)))
    if config.page is not None:
        texts[config.page] = renewed(config.page, throughput="\n".join(short_tables(result)))
    picture = io.BytesIO()
    draw(result).savefig(picture, dpi=100)
    write_atomically(config.picture, picture.getvalue())
    for path, text in texts.items():
        write_atomically(path, text.encode())
    print(f"{config.table}")


def command() -> None:
    """The command line."""
    run_command("speed.report", ReportConfig, write_report)


if __name__ == "__main__":
    command()
