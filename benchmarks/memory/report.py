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
from benchmarks.harness.markdown_blocks import filled, renewed
from benchmarks.harness.schema import NUMBER, ResultSchema, is_dirty
from benchmarks.memory.agents import AGENTS, RECURRENT, STATES
from benchmarks.memory.tasks import CARTPOLE_SUCCESS_STEPS, TASKS
from sb3_permakey.files import write_atomically

RESULTS, TABLE = Path("benchmarks/results/memory"), Path("benchmarks/results/memory.md")
PICTURE = Path("docs/memory.png")
NOTES = Path(__file__).with_name("notes.md")
SCHEMAS = (
    ResultSchema(
        "memory/*.json",
        {
            "task": str,
            "agent": str,
            "seed": int,
            "steps": int,
            "reward_scale": NUMBER,
            "settings": dict,
            "curve": dict,
            "test": dict,
            "training": dict,
        },
        known_dirty=frozenset({"b1cd17907d8b-dirty"}),
    ),
    ResultSchema(
        "stale_states/*.json",
        {
            "game": str,
            "seed": int,
            "config": dict,
            "training": dict,
            "episodes": int,
            "whole": dict,
            "networks": dict,
            "update_ms": dict,
        },
    ),
)
MEASURES = {"mean_return": "return", "success": "success rate"}
SHORT_TABLE = ("recurrent-dqn-burn-in", "recurrent-qrdqn-burn-in", "recurrent-ppo", "dqn-stack", "dqn")
"""Agents that the page of results compares on CartPole."""
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
    page: Path | None = None
    """File in which to renew CartPole's table between its marks, <!-- memory --> and <!-- /memory -->."""


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


def tasks_of(results: Results, *, need_memory: bool) -> list[str]:
    """The tasks with results that need a memory, or those that need none."""
    return [task for task in TASKS if task in results and (TASKS[task].family in RECURRENT) == need_memory]


def table(results: Results, *, need_memory: bool = True) -> list[str]:
    """A row an agent, a column a task of those that need a memory, or that need none."""
    tasks = tasks_of(results, need_memory=need_memory)
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
    if set(bounds) == {"-"}:
        return lines
    return [*lines, f"| the best without memory (by calculation) | {' | '.join(bounds)} |"]


def short_table(results: Results) -> list[str]:
    """CartPole's returns of the agents that the page of results compares."""
    rows = [(AGENTS[name].label, results["cartpole"][name]) for name in SHORT_TABLE]
    return [
        "| agent | return |",
        "|---|---|",
        *(f"| {label} | {cell([run['test']['mean_return'] for run in runs], 0)} |" for label, runs in rows),
    ]


def windows(results: Results) -> str:
    """Steps in a window of each family of tasks that need a memory."""
    families = dict.fromkeys(TASKS[task].family for task in tasks_of(results, need_memory=True))
    return ", ".join(f"{family} {RECURRENT[family]['sequence_length']}" for family in families)


def dirty_runs(results: Results) -> list[str]:
    """A line for each task with runs of no clean commit: their agents and seeds."""
    lines = []
    for task in TASKS:
        seeds = {
            name: [run["seed"] for run in results[task][name] if is_dirty(run)]
            for name in AGENTS
            if task in results and name in results[task]
        }
        agents = [f"{AGENTS[name].label} ({', '.join(map(str, found))})" for name, found in seeds.items() if found]
        if agents:
            lines.append(f"- {task}, in brackets the seeds: {'; '.join(agents)}")
    return lines


def report(results: Results, picture: str) -> str:
    """The whole document, with the address of the picture."""
    every_run = [run for agents in results.values() for runs in agents.values() for run in runs]
    machine = "No runs yet."
    if every_run:
        minutes = [run["training"]["minutes"] for run in every_run]
        cpus = " or ".join(sorted({run["machine"]["cpu"] for run in every_run}))
        machine = f"{len(every_run)} runs of {min(minutes):.1f} to {max(minutes):.1f} minutes, one thread of {cpus}."
    count = sum(map(is_dirty, every_run))
    return filled(
        NOTES,
        cartpole_success=str(CARTPOLE_SUCCESS_STEPS),
        table=table(results),
        without_memory=table(results, need_memory=False) if tasks_of(results, need_memory=False) else None,
        windows=windows(results),
        burn_in=str(STATES["burn-in"]["burn_in"]),
        picture=picture,
        machine=machine,
        dirty_count=f"{count} of the {len(every_run)} runs",
        dirty=dirty_runs(results) or None,
    )


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
    panel.locator_params(axis="x", nbins=5)


def write_report(config: ReportConfig) -> None:
    """Write table and picture."""
    results = read_results(config.results)
    page = renewed(config.page, memory="\n".join(short_table(results))) if config.page else None
    picture = os.path.relpath(config.picture, config.table.parent)
    write_atomically(config.table, report(results, picture).encode())
    if config.page and page:
        write_atomically(config.page, page.encode())
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
