"""Table and curves of what `benchmarks.memory` measured: python -m benchmarks.memory.report"""

from __future__ import annotations

import io
import json
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.harness.command import run_command
from benchmarks.memory.agents import AGENTS, RECURRENT, STATES
from benchmarks.memory.tasks import CARTPOLE_SUCCESS_STEPS, TASKS
from sb3_permakey.files import write_atomically

RESULTS, TABLE = Path("benchmarks/results/memory"), Path("benchmarks/results/memory.md")
PICTURE = Path("docs/memory.png")
MEASURES = {"mean_return": "return", "success": "success rate"}
SHORT_TABLE = ("recurrent-dqn-burn-in", "recurrent-qrdqn-burn-in", "recurrent-ppo", "dqn-stack", "dqn")
"""Agents that the README compares on CartPole."""
Results = dict[str, dict[str, list[dict[str, Any]]]]
"""By task and agent: the runs, one per seed."""


@dataclass(frozen=True)
class ReportConfig:
    """Write the table and draw the curves."""

    results: Path = RESULTS
    """Where the JSON files are."""
    table: Path = TABLE
    """Markdown file to write."""
    picture: Path = PICTURE
    """Picture to write."""


def read_results(folder: Path) -> Results:
    """All finished runs, in the order of their seeds."""
    results: Results = defaultdict(lambda: defaultdict(list))
    runs = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    for run in sorted(runs, key=lambda run: run["seed"]):
        results[run["task"]][run["agent"]].append(run)
    return results


def cell(figures: list[float], digits: int) -> str:
    """Mean over seeds, in brackets each seed's figure."""
    if not figures:
        return "-"
    return f"{np.mean(figures):.{digits}f} ({', '.join(f'{figure:.{digits}f}' for figure in figures)})"


def table(results: Results) -> list[str]:
    """A row an agent, a column a task."""
    tasks = [task for task in TASKS if task in results]
    titles = ["agent", *(f"{task}, {MEASURES[TASKS[task].measure]}" for task in tasks)]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for name, agent in AGENTS.items():
        runs = [(task, results[task][name]) for task in tasks]
        if any(found for _, found in runs):
            cells = [
                cell([run["test"][TASKS[task].measure] for run in found], 2 if TASKS[task].measure == "success" else 0)
                for task, found in runs
            ]
            lines.append(f"| {agent.label} | {' | '.join(cells)} |")
    bounds = ["-" if TASKS[task].memoryless is None else f"{TASKS[task].memoryless:.2f}" for task in tasks]
    return [*lines, f"| the best without memory (by calculation) | {' | '.join(bounds)} |"]


def short_table(results: Results) -> list[str]:
    """CartPole's returns of the agents that the README compares."""
    rows = [(AGENTS[name].label, results["cartpole"][name]) for name in SHORT_TABLE]
    return [
        "| agent | return |",
        "|---|---|",
        *(f"| {label} | {cell([run['test']['mean_return'] for run in runs], 0)} |" for label, runs in rows),
    ]


def window_lines(results: Results) -> list[str]:
    """How long windows are beside what must be remembered."""
    families = dict.fromkeys(TASKS[task].family for task in TASKS if task in results)
    burn_in = STATES["burn-in"]["burn_in"]
    windows = ", ".join(f"{family} {RECURRENT[family]['sequence_length']}" for family in families)
    return [
        f"Steps in a window of the recurrent Q-learning agents: {windows}; burn-in {burn_in}. A window that begins",
        "with a zero state lacks all that came before it; a stored state may hold it. But no gradient leaves its",
        "window, so a network learns to keep something for longer only by chance, hence the windows of whole episodes.",
        "What follows from the table is in the [guide](../../docs/recurrent_agents.md).",
    ]


def report(results: Results, picture: str) -> str:
    """The whole document, with the address of the picture."""
    every_run = [run for agents in results.values() for runs in agents.values() for run in runs]
    lines = [
        "# Memory",
        "",
        "Written by `python -m benchmarks.memory` from the JSON files in [memory/](memory/), which hold each run's",
        "settings, curve, command, commit and machine. Mean over seeds, in brackets each seed: new episodes of the",
        "checkpoint that was best in validation, 20 of CartPole and 100 of the others. The number in a task's name is",
        "the steps that must be remembered. The recurrent Q-learning agents' settings for CartPole were chosen on",
        "other seeds, RecurrentPPO and DQN have RL Zoo's.",
        f"CartPole shows neither velocity; it counts as solved from a return of {CARTPOLE_SUCCESS_STEPS}, of 500.",
        "",
        *table(results),
        "",
        *window_lines(results),
        "",
        f"![Validation while learning]({picture})",
    ]
    if every_run:
        minutes = [run["training"]["minutes"] for run in every_run]
        cpu = every_run[0]["machine"]["cpu"]
        lines += [
            "",
            f"{len(every_run)} runs of {min(minutes):.1f} to {max(minutes):.1f} minutes, one thread of {cpu}.",
        ]
    return "\n".join(lines) + "\n"


def draw_curves(results: Results) -> Figure:
    """Validation over the steps of training: a panel a task, mean and range over seeds."""
    tasks = [task for task in TASKS if task in results]
    figure = Figure(figsize=(4.5 * len(tasks), 5.5), layout="constrained")
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    for panel, task in zip(panels, tasks, strict=True):
        draw_task(panel, task, results[task])
    lines = {line.get_label(): line for panel in panels for line in panel.get_lines() if line.get_label()[0] != "_"}
    labels = [agent.label for agent in AGENTS.values() if agent.label in lines]
    figure.legend([lines[label] for label in labels], labels, loc="outside lower center", ncols=min(len(tasks) + 1, 4))
    return figure


def draw_task(panel: Axes, task: str, agents: dict[str, list[dict[str, Any]]]) -> None:
    """Curves of one task's agents; an agent has the same colour in every panel."""
    measure = TASKS[task].measure
    for index, (name, agent) in enumerate(AGENTS.items()):
        if runs := agents.get(name):
            points = min(len(run["curve"]["steps"]) for run in runs)
            steps = runs[0]["curve"]["steps"][:points]
            curves = np.array([run["curve"][measure][:points] for run in runs])
            panel.plot(steps, curves.mean(axis=0), color=f"C{index % 10}", ls="-:"[index // 10], label=agent.label)
            panel.fill_between(steps, curves.min(axis=0), curves.max(axis=0), color=f"C{index % 10}", alpha=0.12)
    if (bound := TASKS[task].memoryless) is not None:
        panel.axhline(bound, color="black", linewidth=0.8, linestyle="--")
    panel.set(title=task, xlabel="environment steps", ylabel=MEASURES[measure])
    panel.set_ylim(bottom=0)


def write_report(config: ReportConfig) -> None:
    """Write table and picture."""
    results = read_results(config.results)
    picture = os.path.relpath(config.picture, config.table.parent)
    write_atomically(config.table, report(results, picture).encode())
    if results:
        content = io.BytesIO()
        draw_curves(results).savefig(content, format="png", dpi=80)
        write_atomically(config.picture, content.getvalue())
    print(f"{config.table}")


def command() -> None:
    """The command line."""
    run_command("memory.report", ReportConfig, write_report)


if __name__ == "__main__":
    command()
