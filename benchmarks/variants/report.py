"""Tables of the variants that were tried: python -m benchmarks.variants.report"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.harness.command import run_command
from benchmarks.harness.markdown_blocks import filled
from benchmarks.harness.schema import ResultSchema
from benchmarks.variants.encoder_speed import SPEED
from sb3_permakey.envs.atari import plain_game_name
from sb3_permakey.files import write_atomically
from sb3_permakey.play.players import RANDOM

CHAPTERS = (
    "peak_variants",
    "pointnet_variants",
    "pointnet_variants_long",
    "softmax_permakey",
    "softmax_transporter",
    "feature_variants",
    "feature_variants_agent",
)
"""Folders of results; each has its section in the notes."""
NOTES = Path(__file__).with_name("notes.md")
SCHEMAS = (
    *(ResultSchema(f"{name}/*.json", {"game": str, "config": dict, "variants": dict}) for name in CHAPTERS),
    ResultSchema("encoders/*.json", {"game": str, "config": dict, "variants": dict}),
    ResultSchema(SPEED, {"game": str, "ms": dict, "batch_size": int, "threads": int}),
    ResultSchema("adam/*.json", {"game": str, "config": dict, "epsilons": dict, "threads": int}),
    ResultSchema("persistence/*.json", {"game": str, "config": dict, "frames": int, "variants": dict, "threads": int}),
    ResultSchema("players/*.json", {"game": str, "seeds": list, "agent": dict, "random": dict}),
)


@dataclass(frozen=True)
class ReportConfig:
    """Write the tables."""

    results: Path = Path("benchmarks/results")
    """Where the folders of JSON files are, one file a game."""
    out: Path = Path("benchmarks/results/variants.md")
    """Markdown file to write."""


def value(figure: Any) -> float:
    """A figure's value, which the JSON files hold as [value, low, high] or by name."""
    return figure["value"] if isinstance(figure, dict) else figure[0]


def chapter(folder: Path) -> list[str]:
    """A table of all games, a row a variant, and the commands; nothing where there are no results."""
    results = sorted(
        (json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))),
        key=lambda result: result.get("config", {}).get("seed", 0),
    )
    if not results:
        return []
    columns = {column_title(result): [] for result in results}
    for result in results:
        columns[column_title(result)].append(result)
    noisy = [seeds for seeds in columns.values() if is_noisy(seeds[0])]
    titles = ["variant", *columns, "mean", "mean tracking", *(["on a bar"] if noisy else [])]
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for name in dict.fromkeys(name for result in results for name in result["variants"]):
        f1 = [figures_of(seeds, name, "f1") for seeds in columns.values()]
        tracking = [figures_of(seeds, name, "tracking") for seeds in columns.values()]
        on_a_bar = [figures_of(seeds, name, "distractor_rate") for seeds in noisy]
        cells = [*map(cell, f1), mean_cell(f1), mean_cell(tracking), *([mean_cell(on_a_bar)] if noisy else [])]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    commands = [f"- {column_title(result)}: `{result['command']}`, commit {result['commit']}" for result in results]
    return [*lines, "", *commands]


def figures_of(seeds: list[dict[str, Any]], variant: str, figure: str) -> list[float]:
    """A variant's figure with each seed that it was tried with; not of those where nothing could be counted."""
    values = [value(result["variants"][variant][figure]) for result in seeds if variant in result["variants"]]
    return [each for each in values if each is not None]


def is_noisy(result: dict[str, Any]) -> bool:
    """Whether bars were on the frames."""
    return bool(result.get("config", {}).get("distractor"))


def column_title(result: dict[str, Any]) -> str:
    """The game, whether it was noisy, and whether others than the random policy played it."""
    policy = result.get("config", {}).get("policy", [RANDOM])
    return (
        result["game"] + (", noisy" if is_noisy(result) else "") + ("" if policy == [RANDOM] else ", an agent's play")
    )


def mean_cell(games: list[list[float]]) -> str:
    """Mean over the games of each game's mean over its seeds, "-" where a game is missing."""
    return cell([fmean(map(fmean, games))] if all(games) else [])


def cell(seeds: list[float]) -> str:
    """A game's figure in a table: the mean, and where there are several seeds each of them in brackets."""
    if not seeds:
        return "-"
    each = f" ({', '.join(f'{figure:.2f}' for figure in seeds)})" if len(seeds) > 1 else ""
    return f"{fmean(seeds):.2f}{each}"


def player_lines(folder: Path) -> list[str]:
    """How good the agents are who played frames, as `sb3-permakey evaluate` wrote it: a line each."""
    players = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return [
        f"- {plain_game_name(player['game'])}'s agent: mean score {player['agent']['mean']:.0f}, the random policy's "
        f"{player['random']['mean']:.0f}; `{player['command']}`, commit {player['commit']}"
        for player in players
    ]


def report(results: Path) -> str:
    """The whole document.

    :param results: where the folders of JSON files are
    """
    parts: dict[str, list[str] | None] = {name: chapter(results / name) or None for name in CHAPTERS}
    if of_the_agent := parts["feature_variants_agent"]:
        parts["feature_variants_agent"] = [*of_the_agent, *player_lines(results / "players")]
    return filled(NOTES, **parts)


def main(config: ReportConfig) -> None:
    """Write the tables."""
    write_atomically(config.out, report(config.results).encode())
    print(config.out)


def command() -> None:
    """The command line."""
    run_command("variants.report", ReportConfig, main)


if __name__ == "__main__":
    command()
