"""Tables of the variants that were tried: python -m benchmarks.variants.report"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.harness.command import run_command
from sb3_permakey.atari import plain_game_name
from sb3_permakey.files import write_atomically
from sb3_permakey.pretraining.players import RANDOM

CHAPTERS = {
    "peak_variants": (
        "Peaks: which map, how far apart",
        "The same error maps, read in several ways; nothing is trained. Used: first layer, 5 px, which needs one\n"
        "layer's LSPN alone; no other reading is better on every game. The contrast is the option `surround_px`.",
    ),
    "pointnet_variants": (
        "PointNet",
        "One change at a time, 3,000 steps each, trained alone on the same stored error maps. No change helps on\n"
        "every game. On noisy frames the maps' contrast keeps more keypoints on objects and halves those on a bar,\n"
        "still twice what random points have.",
    ),
    "pointnet_variants_long": (
        "PointNet, 8,000 steps",
        "As many steps as the package's checkpoints were trained, in batches of 16 instead of 32. `--map-power 0.5`,\n"
        "the root of the error maps, is better than the paper's setting on five of the seven games; on MsPacman seeds\n"
        "differ more than settings, and on BattleZone it is .02 worse. The softmax over the whole map, which the\n"
        "package's checkpoints and the `strong` preset have as well, is .03 better beside it on Enduro and .05 to .07\n"
        "worse on BattleZone, Frostbite and Seaquest; elsewhere the two are within .03 of each other. Trained on more\n"
        "frames, that turns round: next table.",
    ),
    "softmax_permakey": (
        "PointNet, trained as the package's",
        "The package's VAE and LSPN and the root of the maps, 8,000 steps of 32 images, of 16,000 frames instead of\n"
        "the 4,000 above: now the softmax over the whole map is .07 to .08 better than the paper's on both games, so\n"
        "the `strong` preset keeps it. Short trials were no judge of it. One seed.",
    ),
    "softmax_transporter": (
        "Transporter",
        "The baseline with the paper's softmax and with the one that the comparison gives it, 4,000 steps each. The\n"
        "second is .15 and .19 better on MsPacman and Frostbite; on MontezumaRevenge the paper's is .03 better, and\n"
        "on BattleZone .13, yet below random points. PermaKey is above both on all four.",
    ),
    "feature_variants": (
        "VAE and LSPN",
        "One change at a time, 600 steps each, scored by the peaks of the first layer in `layers`; no PointNet.\n"
        "Neither the KL weight nor training the encoder at all is worth more than .03 on any game: features of random\n"
        "weights serve the peaks almost as well. More layers leave the first one's map as it is, for each has an LSPN\n"
        "of its own; without the first two, objects are lost on MsPacman and Seaquest. Frames of a better player help\n"
        "on SpaceInvaders; on MsPacman and Seaquest they change no more than .02. These players learned for\n"
        "20,000 to 30,000 steps; frames of the paper's, who learned for longer, may bring more.",
    ),
    "feature_variants_agent": (
        "VAE and LSPN, scored on the better player's frames",
        "The same checkpoints on frames of the agents who played half of the training frames, of the `strong` preset.",
    ),
}


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
    lines = [
        "# What was tried",
        "",
        "Written by `python -m benchmarks.variants_report` from the JSON files beside it, which hold precision, recall",
        "and all else with intervals. F1 of each game, displays included, its mean over the games, and how often a",
        "moving object keeps its keypoint. Of several training seeds the mean, and each in brackets; where there is",
        "one, differences of a few hundredths mean nothing.",
    ]
    for name, (title, text) in CHAPTERS.items():
        tables = chapter(results / name)
        if tables:
            lines += ["", f"## {title}", "", text, "", *tables]
            if name == "feature_variants_agent":
                lines += player_lines(results / "players")
    return "\n".join(lines) + "\n"


def main(config: ReportConfig) -> None:
    """Write the tables."""
    write_atomically(config.out, report(config.results).encode())
    print(config.out)


def command() -> None:
    """The command line."""
    run_command("variants.report", ReportConfig, main)


if __name__ == "__main__":
    command()
