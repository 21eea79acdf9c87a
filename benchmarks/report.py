"""Tables and pictures of what `benchmarks.atari100k` measured: python -m benchmarks.report --readme README.md"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from matplotlib.figure import Figure

from benchmarks.atari100k.pictures import learning_curves, profiles_picture, scores_against_time
from benchmarks.atari100k.results import Result, read_results
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
from benchmarks.renewal import renewed
from sb3_permakey.files import write_atomically

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
    lines = [
        "# Atari, 100,000 steps",
        "",
        "Written by `python -m benchmarks.report` from the JSON files in [atari100k/](atari100k/), which hold each",
        "run's settings, validations, test scores of every game, command, commit, versions and machine. The published",
        "figures are in [published_scores.json](../atari100k/published_scores.json), with their sources.",
        "",
        "The test: the checkpoint with the best validation (10 games, cut after 4,500 agent steps), 10 whole games on",
        "each of 10 unseen environment seeds, no exploration. Tables 1 to 3 show the statistic of the paper's released",
        "code: of the environment seeds the median one, its mean over the runs' policies, and in brackets the root",
        "mean square of the policies' stds over that seed's games. Bold: measured here.",
        "Since games without exploration repeat themselves, newer runs are tested a second time with actions random",
        "at .001, which the table of everything measured has.",
        "Runs at commits up to aa76460 carried memory and tracker on over lost lives in validation and test; since",
        "then each life begins anew there too, as in training, and validation's actions are random at .001.",
        "",
        "## Table 1",
        "",
        *table1(groups),
        "",
        "## Table 2: noisy games",
        "",
        "Here a horizontal and a vertical bar in every frame.",
        "",
        *table2(groups),
        "",
        "## Table 3: MsPacman, number of keypoints",
        "",
        *table3(groups),
        "",
        "## All runs",
        "",
        "Different scores: how many a run's test games had. Without exploration and sticky actions, games differ in",
        "the no-ops at their beginning alone, and where the game's opening swallows those, hardly: 100 games then say",
        "as much as a handful, and 10 of a validation less. IQM of games: the mean of the middle half of all test",
        "games. Human-normalised: 0 is the published random policy, 1 the published human. Training games, played with",
        "exploration (paper: .55 falling to .1, strong: .05), are all different: their mean, standard error and number",
        "over the runs that kept them. Validations: mean over the runs. Hours: training and validation, without test",
        "and pretraining. The controls show the same agent other points: OCAtari's true objects (an absent one in the",
        "corner, its features zero), a fixed grid, or points drawn anew in every frame, with features of the same",
        "checkpoint. The random policy takes uniform actions on the same seeds.",
        "",
        *all_runs_table(groups),
        "",
        "## Over games",
        "",
        "Interquartile mean of the runs' human-normalised scores, 95 % intervals of a bootstrap over runs, stratified",
        "by games (rliable). Methods with other games do not compare.",
        "",
        *aggregate_table(groups),
        "",
        "## Settings tried",
        "",
        "Runs on seeds from 100 on, which no run above has, without a test; from them the preset `strong` was chosen.",
        "One run each, and validations of few different games: seeds differ as much as most settings do. Training's",
        "own games, played with some exploration, are all different; in brackets their mean's standard error. What is",
        "not named has the agent's default. Agents of commit 0d8dbb1 and later ones begin with orthogonal, centred",
        "weights.",
        "",
        *(trials_table(trials) if trials else ["None yet."]),
        "",
        *(line for title, address in pictures.items() for line in (f"![{title}]({address})", "")),
        *machines(results),
    ]
    return "\n".join(lines) + "\n"


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


if __name__ == "__main__":
    try:
        write_report(tyro.cli(ReportConfig))
    except (ValueError, OSError) as error:
        sys.exit(f"report: {error}")
