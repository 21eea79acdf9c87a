"""Tables and pictures of what was measured: python -m benchmarks.atari100k.report --update --readme README.md"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.atari100k.claims import claims_section
from benchmarks.atari100k.pictures import learning_curves, profiles_picture, scores_against_time
from benchmarks.atari100k.tables import (
    Groups,
    aggregate_table,
    all_runs_table,
    group_runs,
    short_table,
    table1,
    table2,
    table3,
    trials_table,
)
from benchmarks.harness.command import run_command
from benchmarks.harness.markdown_blocks import filled, renewed
from benchmarks.harness.results import Result, read_results
from benchmarks.harness.schema import TEXT_OR_NONE, ResultSchema
from sb3_permakey.files import write_atomically

NOTES = Path(__file__).with_name("notes.md")
RUN = {
    "game": str,
    "method": str,
    "preset": TEXT_OR_NONE,
    "noise": str,
    "num_keypoints": (int, type(None)),
    "seed": int,
    "settings": dict,
    "schedule": dict,
    "checkpoint": (dict, type(None)),
    "validation": list,
    "test": dict,
    "seconds": dict,
    "threads": int,
    "device": str,
    "sha256": str,
}
SCHEMAS = (
    ResultSchema("atari100k/*.json", RUN),
    ResultSchema("atari100k_trials/*.json", RUN),
    ResultSchema("encoder_agents/*.json", RUN),
)
RESULTS, TABLE = Path("benchmarks/results/atari100k"), Path("benchmarks/results/atari100k.md")


@dataclass(frozen=True)
class ReportConfig:
    """Write the tables and draw the pictures."""

    results: Path = RESULTS
    """Where the JSON files are; those of runs that were made to choose settings are beside it, in NAME_trials."""
    table: Path = TABLE
    """Markdown file to write."""
    pictures: Path = Path("docs")
    """Folder of the pictures."""
    readme: Path | None = None
    """File in which to renew the short table between its marks, <!-- atari100k --> and <!-- /atari100k -->."""


def machines(results: Sequence[Result]) -> list[str]:
    """A line for each kind of machine: how many runs that trained, how long."""
    by_machine: dict[str, list[float]] = {}
    for result in results:
        if "training" not in result["seconds"]:
            continue
        machine = result["machine"]
        name = f"{machine['gpu']}" if result["device"] != "cpu" and machine["gpu"] else machine["cpu"]
        seconds = sum(result["seconds"].get(phase, 0) for phase in ("training", "validation", "test"))
        by_machine.setdefault(f"{name}, threads: {result['threads']}", []).append(seconds / 3600)
    lines = []
    for name, hours in by_machine.items():
        took = f"{hours[0]:.2f} hours"
        if len(hours) > 1:
            took = f"{min(hours):.2f} to {max(hours):.2f} hours each, {sum(hours):.1f} in all"
        lines.append(f"- {name}, runs: {len(hours)}; with validation and test {took}.")
    return lines


def report(results: Sequence[Result], trials: Sequence[Result], pictures: dict[str, str]) -> str:
    """The whole document.

    :param results: all runs
    :param trials: runs that were made to choose settings
    :param pictures: titles and addresses
    """
    groups = group_runs(results)
    return filled(
        NOTES,
        table1=table1(groups),
        table2=table2(groups),
        table3=table3(groups),
        claims=claims_section(groups),
        all_runs=all_runs_table(groups),
        over_games=aggregate_table(groups),
        trials=trials_table(trials) if trials else "None yet.",
        pictures="".join(f"![{title}]({address})\n\n" for title, address in pictures.items()),
        machines=machines(results),
    )


def short_report(results: Sequence[Result]) -> str:
    """What the README shows: the short table and how long the runs took."""
    return "\n".join([*short_table(group_runs(results)), "", *machines(results)])


def draw(groups: Groups) -> dict[str, tuple[str, Figure]]:
    """The pictures that the runs allow: file name to title and figure."""
    trained = {kind: runs for kind, runs in groups.items() if any(run["validation"] for run in runs)}
    if not trained:
        return {}
    figures = {
        "atari100k_curves.png": ("Validation while learning", learning_curves(trained)),
        "atari100k_time.png": ("Test scores and hours of a run, with published agents", scores_against_time(trained)),
        "atari100k_profiles.png": ("Performance profiles", profiles_picture(groups)),
    }
    return {name: (title, figure) for name, (title, figure) in figures.items() if figure is not None}


def write_report(config: ReportConfig) -> None:
    """Write tables and pictures; damaged results are set aside with a warning."""
    results = read_results(config.results)
    readme = renewed(config.readme, atari100k=short_report(results)) if config.readme else None
    addresses = {}
    for name, (title, figure) in draw(group_runs(results)).items():
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=80)
        write_atomically(config.pictures / name, content.getvalue())
        addresses[title] = os.path.relpath(config.pictures / name, config.table.parent)
    trials = read_results(config.results.with_name(f"{config.results.name}_trials"))
    write_atomically(config.table, report(results, trials, addresses).encode())
    if readme:
        write_atomically(config.readme, readme.encode())
    print(f"{config.table}: {len(results)} runs")


def command() -> None:
    """The command line."""
    run_command("atari100k.report", ReportConfig, write_report)


if __name__ == "__main__":
    command()
