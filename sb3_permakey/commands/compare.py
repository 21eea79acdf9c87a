"""`sb3-permakey compare`: learning curves of runs with intervals, and a table of final and best scores."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sb3_permakey.commands.output import say
from sb3_permakey.extras import missing_package
from sb3_permakey.files import require_writable, write_atomically
from sb3_permakey.settings import NO_DEFAULT, require_suffix
from sb3_permakey.training.curves import WINDOW, GroupCurve, GroupRule, Interval, Kind, group_runs, read_curves


@dataclass(frozen=True)
class CompareConfig:
    """Compare runs: a picture of their learning curves, and a table."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...", help_behavior_hint="")]
    """Runs' folders, of `train` or of SB3 (evaluations.npz, or Monitor's *monitor.csv), or single Monitor files."""
    out: Annotated[Path | None, NO_DEFAULT] = None
    """PNG file: the curves, with their 95 % intervals."""
    group: GroupRule = "number"
    """Which runs are seeds of one setting. number: folders side by side whose names differ in a number at the end.
    parent: all of one folder. none: each by itself."""
    scores: Annotated[Kind | None, NO_DEFAULT] = None
    """validations, where all runs have them, or the mean of the last 100 training episodes, from Monitor's files."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("name at least one run's folder")
        require_suffix(".png", out=self.out)


def run(config: CompareConfig) -> None:
    """Compare runs."""
    table = compare(config)
    if config.out:
        say(f"{config.out}: the learning curves")
    say(table)


def compare(config: CompareConfig) -> str:
    """Draw the picture, where one is wanted.

    :param config: what to compare
    :return: the table, in Markdown
    :raises ImportError: when a picture is wanted and matplotlib is not installed
    :raises RunFilesError: when a run's files are missing or broken, or runs of a group have no steps in common
    :raises WriteError: when the picture cannot be written
    """
    require_writable(config.out)
    curves, kind = read_curves(config.runs, config.scores)
    groups = group_runs(curves, config.group)
    if config.out:
        draw_curves(config.out, groups, kind)
    return comparison_table(groups, kind)


def comparison_table(groups: Sequence[GroupCurve], kind: Kind) -> str:
    """Final and best scores in Markdown, with a line that says what they are."""
    lines = ["| setting | runs | steps | final | best |", "|---|---|---|---|---|"]
    for group in groups:
        name = group.name.replace("|", "\\|")
        figures = " | ".join(_figure(interval) for interval in (group.final, group.best))
        lines.append(f"| {name} | {len(group.runs)} | {group.steps[-1]:,} | {figures} |")
    return "\n".join([*lines, "", *explanation(groups, kind)])


def explanation(groups: Sequence[GroupCurve], kind: Kind) -> list[str]:
    """What the table's figures are."""
    scores = {"validations": "validations", "episodes": f"means of the last {WINDOW} training episodes"}[kind]
    lines = [f"Scores are {scores}; in brackets Student's 95 % interval of the mean over runs."]
    if any(len(group.runs) == 1 for group in groups):
        lines.append("Where there is one run, the interval is over its games, and says nothing about other seeds.")
    return [*lines, "Best is each run's highest, which chance raises the more the more often a run is scored."]


def draw_curves(path: Path, groups: Sequence[GroupCurve], kind: Kind) -> Path:
    """Write the curves as PNG: each group's mean, its interval as a band, and its single runs as thin lines.

    :raises ImportError: when matplotlib is not installed
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise missing_package("Learning curves need matplotlib", "curves") from error
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for index, group in enumerate(groups):
        color = f"C{index % 10}"
        mean, low, high = zip(*group.curve, strict=True)
        count = f"{len(group.runs)} runs" if len(group.runs) > 1 else "1 run, its games"
        axes.fill_between(group.steps, low, high, color=color, alpha=0.2, linewidth=0)
        axes.plot(group.steps, mean, color=color, label=f"{group.name} ({count})", marker="o", markersize=3)
        for run in group.runs if len(group.runs) > 1 else ():
            axes.plot(run.steps, run.means, color=color, alpha=0.35, linewidth=0.8)
    axes.set_xlabel("agent steps")
    axes.set_ylabel({"validations": "score of validation", "episodes": f"mean of {WINDOW} training episodes"}[kind])
    axes.grid(alpha=0.3)
    axes.legend(title="mean and 95 % interval", fontsize="small")
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return write_atomically(path, content.getvalue())


def _figure(interval: Interval) -> str:
    if interval.low != interval.low:
        return f"{interval.mean:.1f}"
    return f"{interval.mean:.1f} ({interval.low:.1f} to {interval.high:.1f})"
