"""Tables of what `benchmarks.keypoints` measured.

    python -m benchmarks.keypoints.report --update --readme README.md --page docs/results.md --guide docs/keypoints.md

Without the other options it writes benchmarks/results/keypoints.md alone.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.command import run_command
from benchmarks.harness.markdown_blocks import filled, renewed
from benchmarks.harness.schema import ResultSchema
from benchmarks.keypoints.run import NUM_KEYPOINTS, RESULTS
from sb3_permakey.files import write_atomically

NOTES = Path(__file__).with_name("notes.md")
COMPARED = {"game": str, "method": str, "noise": str}
SCHEMAS = (
    ResultSchema(
        "keypoints/*.json",
        {**COMPARED, "seed": int, "num_keypoints": int, "training": dict, "scores": dict, "frames_scored": int},
    ),
    ResultSchema("keypoints/stability/*.json", {**COMPARED, "seeds": list, "checkpoints": list, "stability": dict}),
)
ROWS = {
    ("permakey", "peaks"): "PermaKey, peaks",
    ("permakey", "contrast"): "PermaKey, peaks of the contrast",
    ("permakey", "steady"): "PermaKey, steady peaks",
    ("permakey", "pointnet"): "PermaKey, PointNet",
    ("transporter", "pointnet"): "Transporter",
}
SHORT_ROWS = {key: label for key, label in ROWS.items() if key != ("permakey", "steady")}
"""Without steady peaks, which hit what those of the contrast do."""
COLUMNS = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "f1_without_displays": "F1 without displays",
    "coverage": "coverage",
    "tracking": "tracking",
}
POINTS = {"grid": "fixed grid", "random": "random points"}
GUIDE_KINDS = {
    "MsPacman": ("Player", "Ghost"),
    "Seaquest": ("Diver", "PlayerMissile"),
    "BattleZone": ("Shot",),
    "Frostbite": ("FloatingBlock", "House"),
    "MontezumaRevenge": ("Key",),
}
"""Kinds of objects, of each game, by which the guide shows how the readings differ."""
NOISE = ("clean", "both")
Results = dict[tuple[str, str], dict[str, list[dict[str, Any]]]]
"""By game and noise: results of each method, one per seed."""


@dataclass(frozen=True)
class ReportConfig:
    """Write the tables."""

    results: Path = RESULTS
    """Where the JSON files are."""
    out: Path = Path("benchmarks/results/keypoints.md")
    """Markdown file to write."""
    readme: Path | None = None
    """File in which to renew the short table between its marks, <!-- keypoints --> and <!-- /keypoints -->."""
    page: Path | None = None
    """File in which to renew the short table of noisy frames, between <!-- noisy --> and <!-- /noisy -->."""
    guide: Path | None = None
    """File in which to renew the table of some kinds of objects, between <!-- kinds --> and <!-- /kinds -->."""


def read_results(folder: Path) -> Results:
    """All finished runs."""
    results: Results = defaultdict(lambda: defaultdict(list))
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text())
        results[result["game"], result["noise"]][result["method"]].append(result)
    return results


def cell(figures: list[dict[str, float | None]]) -> str:
    """Mean over seeds, beside it the episodes' interval of a single seed or the range of several."""
    values = [figure["value"] for figure in figures if figure["value"] is not None]
    if not values:
        return "-"
    low, high = (figures[0]["low"], figures[0]["high"]) if len(figures) == 1 else (min(values), max(values))
    return f"{np.mean(values):.2f} [{low:.2f}, {high:.2f}]"


def game_rows(game: str, methods: dict[str, list[dict[str, Any]]], noisy: bool) -> list[str]:
    """Table rows of one game: methods, then random points and grid."""
    scored = [
        (label, [run["scores"][readout]["keypoints"] for run in methods[method] if readout in run["scores"]])
        for (method, readout), label in ROWS.items()
        if any(readout in run["scores"] for run in methods.get(method, []))
    ]
    first = next(iter(methods.values()))[0]["scores"]["pointnet"]
    scored += [(label, [first[points]]) for points, label in POINTS.items()]
    names = [*COLUMNS, *(["distractor_rate"] if noisy else [])]
    rows = []
    for label, figures in scored:
        seeds = str(len(figures)) if label in ROWS.values() else "-"
        cells = " | ".join(cell([figure[name] for figure in figures]) for name in names)
        rows.append(f"| {game} (K = {NUM_KEYPOINTS[game]}) | {label} | {seeds} | {cells} |")
    return rows


def table(results: Results, noise: str) -> list[str]:
    """The table of one kind of frames."""
    noisy = noise != "clean"
    titles = ["game", "keypoints", "seeds", *COLUMNS.values(), *(["on a bar"] if noisy else [])]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for game in NUM_KEYPOINTS:
        if (game, noise) in results:
            lines += game_rows(game, results[game, noise], noisy)
    if noisy:
        shares = [
            run["bars_area_share"]
            for (_, kind), methods in results.items()
            for runs in methods.values()
            for run in runs
            if kind == noise
        ]
        lines += ["", f"The bars cover {np.mean(shares):.3f} of a frame."]
    return lines


def mean_value(figures: list[dict[str, float | None]]) -> str:
    """Mean over seeds where there is something to tell."""
    values = [figure["value"] for figure in figures if figure["value"] is not None]
    return f"{np.mean(values):.2f}" if values else "-"


def category_rows(game: str, methods: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """Table row of each kind of objects of one game; none without a result that tells them."""
    scored = [run for runs in methods.values() for run in runs if "categories" in run]
    if not scored:
        return {}
    readings = [
        [run["categories"][readout] for run in scored if run["method"] == method and readout in run["categories"]]
        for method, readout in ROWS
    ]
    fixed = [[scored[0]["categories"][points]] for points in POINTS]
    rows = {}
    for category, count in scored[0]["objects_per_frame"].items():
        hit = [mean_value([one[category]["recall"] for one in seeds]) for seeds in (*readings, *fixed)]
        off = [mean_value([one[category]["motion_error_px"] for one in seeds]) for seeds in readings]
        told = [f"{share} ({error})" for share, error in zip(hit, off, strict=False)]
        rows[category] = f"| {' | '.join([game, category, f'{count:.2f}', *told, *hit[len(off) :]])} |"
    return rows


def category_table(results: Results, noise: str) -> list[str]:
    """Of each kind of objects in each game: how many a frame has, the share hit, and how exactly they are followed."""
    lines = category_head()
    for game in NUM_KEYPOINTS:
        lines += category_rows(game, results.get((game, noise), {})).values()
    return lines


def category_head() -> list[str]:
    """The first two lines of a table of kinds of objects."""
    titles = ["game", "objects", "per frame", *ROWS.values(), *POINTS.values()]
    return ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]


def guide_tables(results: Results) -> dict[str, str]:
    """What the guide to keypoints shows: some kinds of objects on clean frames."""
    lines = category_head()
    for game, kinds in GUIDE_KINDS.items():
        rows = category_rows(game, results[game, "clean"])
        lines += [rows[kind] for kind in kinds]
    return {"kinds": "\n".join(lines)}


def readme_tables(results: Results) -> dict[str, str]:
    """What the README shows, a row a game: F1 on clean frames."""
    return {"keypoints": "\n".join(short_table(results, "clean", ("f1",), "{:.2f}"))}


def page_tables(results: Results) -> dict[str, str]:
    """What the page of results shows, a row a game: F1 on noisy frames, with the share on a bar."""
    return {"noisy": "\n".join(short_table(results, "both", ("f1", "distractor_rate"), "{:.2f} ({:.0%})"))}


def short_table(results: Results, noise: str, names: Sequence[str], form: str) -> list[str]:
    """Mean scores of these names over seeds in cells of this form."""
    lines = [
        "| game | " + " | ".join(SHORT_ROWS.values()) + " | fixed grid | random points |",
        "|" + "---|" * (len(SHORT_ROWS) + 3),
    ]
    for game, methods in sorted((game, methods) for (game, kind), methods in results.items() if kind == noise):
        first = next(iter(methods.values()))[0]["scores"]["pointnet"]
        scored = [
            [run["scores"][readout]["keypoints"] for run in methods.get(method, []) if readout in run["scores"]]
            for method, readout in SHORT_ROWS
        ] + [[first[points]] for points in POINTS]
        means = [
            [np.mean([one[name]["value"] for one in seeds]) for name in names] if seeds else [] for seeds in scored
        ]
        lines.append(f"| {game} | {' | '.join(form.format(*values) if values else '-' for values in means)} |")
    return lines


def training_lines(results: Results) -> list[str]:
    """How each method was trained: its command and the minutes that it took."""
    lines = []
    for method in ("permakey", "transporter"):
        runs = [run for methods in results.values() for run in methods.get(method, [])]
        if runs:
            minutes = [run["training"]["minutes"] for run in runs]
            threads = sorted({run["training"]["threads"] for run in runs})
            lines.append(
                f"- {method}: {len(runs)} run(s), {min(minutes):.0f} to {max(minutes):.0f} minutes each on "
                f"{' or '.join(map(str, threads))} CPU thread(s) of {runs[0]['machine']['cpu']}, one of them: "
                f"`{runs[0]['training']['command']}`"
            )
    return lines


def read_stability(folder: Path) -> list[dict[str, Any]]:
    """What `benchmarks.keypoints.stability` measured, in the games' order."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("stability/*.json"))]
    return sorted(found, key=lambda one: list(NUM_KEYPOINTS).index(one["game"]))


def stability_table(stability: list[dict[str, Any]]) -> list[str]:
    """Pixels between seeds of each game and method, beside those between draws of random points."""
    lines = ["| game | keypoints | seeds | pixels apart | random points |", "|---|---|---|---|---|"]
    for one in stability:
        game = f"{one['game']}{'' if one['noise'] == 'clean' else ', noisy'} (K = {NUM_KEYPOINTS[one['game']]})"
        seeds = ", ".join(map(str, one["seeds"]))
        for (method, readout), label in ROWS.items():
            if method == one["method"]:
                figures = one["stability"][readout]
                apart, drawn = (cell([figures[points]]) for points in ("keypoints", "random"))
                lines.append(f"| {game} | {label} | {seeds} | {apart} | {drawn} |")
    return lines


def report(results: Results, stability: list[dict[str, Any]]) -> str:
    """The whole document."""
    measured = [noise for noise in NOISE if any(kind == noise for _, kind in results)]
    return filled(
        NOTES,
        training=training_lines(results),
        **{noise: table(results, noise) if noise in measured else None for noise in NOISE},
        **{f"kinds_{noise}": category_table(results, noise) if noise in measured else None for noise in NOISE},
        stability=stability_table(stability) if stability else None,
    )


def write_report(config: ReportConfig) -> None:
    """Write the tables."""
    results = read_results(config.results)
    pages = ((config.readme, readme_tables), (config.page, page_tables), (config.guide, guide_tables))
    texts = {page: renewed(page, **tables(results)) for page, tables in pages if page}
    texts[config.out] = report(results, read_stability(config.results))
    for page, text in texts.items():
        write_atomically(page, text.encode())
    print(f"{config.out}")


def command() -> None:
    """The command line."""
    run_command("keypoints.report", ReportConfig, write_report)


if __name__ == "__main__":
    command()
