"""The pictures of `benchmarks.atari100k.report`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.atari100k.statistics import performance_profiles
from benchmarks.atari100k.tables import PUBLISHED, Groups, hours, normalised_scores, scores_of, validation_means
from benchmarks.harness.results import Result

PANEL_SIZE, LEGEND_ROW = (4.2, 3.6), 0.2
"""Inches."""


def _panels(groups: Groups) -> tuple[Figure, dict[str, Axes]]:
    """A figure with a panel for each game."""
    games = sorted({kind.game for kind in groups})
    figure = Figure(figsize=(max(PANEL_SIZE[0] * len(games), 7), PANEL_SIZE[1]), layout="constrained")
    panels = dict(zip(games, figure.subplots(1, len(games), squeeze=False)[0], strict=True))
    for game, panel in panels.items():
        panel.set(title=game, ylabel="score")
    return figure, panels


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """One legend for all panels, below them."""
    handles = {
        label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    columns = 1 + len(panels)
    figure.set_figheight(PANEL_SIZE[1] + LEGEND_ROW * -(-len(handles) // columns))
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns, fontsize=7)


def _colors(groups: Groups) -> dict[str, str]:
    """A colour for each label."""
    return {label: f"C{index % 10}" for index, label in enumerate(dict.fromkeys(kind.label for kind in groups))}


def validation_curves(runs: Sequence[Result]) -> tuple[np.ndarray, np.ndarray]:
    """Steps (V,) and mean scores (runs, V) of the validations that all runs have."""
    count = min(len(run["validation"]) for run in runs)
    steps = np.array([one["steps"] for one in runs[0]["validation"][:count]])
    return steps, np.array([validation_means(run)[:count] for run in runs])


def learning_curves(groups: Groups) -> Figure:
    """Validation scores over agent steps: mean of the runs, and their range."""
    figure, panels = _panels(groups)
    colors = _colors(groups)
    for kind, runs in groups.items():
        steps, scores = validation_curves(runs)
        if not len(steps):
            continue
        panel, color = panels[kind.game], colors[kind.label]
        panel.plot(steps, scores.mean(axis=0), color=color, marker=".", label=kind.label)
        panel.fill_between(steps, scores.min(axis=0), scores.max(axis=0), color=color, alpha=0.15, linewidth=0)
    for game, panel in panels.items():
        panel.set_xlabel("agent steps")
        if game in PUBLISHED["table1"]:
            paper = PUBLISHED["table1"][game]["permakey_gnn"][0]
            panel.axhline(
                paper, color="black", linestyle="--", linewidth=0.8, label="PKey + GNN, test score in the paper"
            )
            random = PUBLISHED["random_human"][game][0]
            panel.axhline(random, color="gray", linestyle=":", linewidth=0.8, label="random policy, published")
    _legend(figure, list(panels.values()))
    return figure


def scores_against_time(groups: Groups) -> Figure:
    """Test scores over the hours of a run, with the published 100k agents; those of unknown time as lines."""
    figure, panels = _panels(groups)
    colors = _colors(groups)
    for kind, runs in groups.items():
        scores = scores_of(runs)
        spent = hours(runs)
        if scores is None or spent == 0 or kind.noise != "clean":
            continue
        panels[kind.game].scatter(
            [spent], [scores.mean()], color=colors[kind.label], marker="o", zorder=3, label=f"{kind.label}, here"
        )
    for game, panel in panels.items():
        for index, (name, agent) in enumerate(PUBLISHED["agents"].items()):
            score = PUBLISHED["other_100k_agents"].get(game, {}).get(name)
            if score is None:
                continue
            if agent["hours"] is not None:
                label = f"{agent['label']}, {agent['hardware']}"
                panel.scatter([agent["hours"]], [score], color="black", marker="xvs^D*P"[index], label=label)
            else:
                panel.axhline(score, color="gray", linestyle="--", linewidth=0.7, label="published, time unknown")
                place = (0.02, score)
                panel.annotate(agent["label"], place, xycoords=("axes fraction", "data"), va="bottom", fontsize=6)
        panel.set(xscale="log", xlabel="hours of a run", ymargin=0.1)
        panel.set_ylim(bottom=0)
    _legend(figure, list(panels.values()))
    return figure


def profiles_picture(groups: Groups) -> Figure | None:
    """Share of runs above each human-normalised score; None without scores or without rliable."""
    scores = normalised_scores(groups)
    if not scores:
        return None
    highest = max(float(values.max()) for _, values in scores.values())
    thresholds = np.linspace(0, max(1.1 * highest, 0.1), 60)
    try:
        shares, intervals = performance_profiles({label: values for label, (_, values) in scores.items()}, thresholds)
    # As in the table: rliable's dependencies fail in ways of their own.
    except Exception:
        return None
    figure = Figure(figsize=(7, 5), layout="constrained")
    panel = figure.subplots()
    for index, (label, (games, _)) in enumerate(scores.items()):
        color, style = f"C{index % 10}", "-:"[index // 10 % 2]
        panel.plot(thresholds, shares[label], style, color=color, label=f"{label}: {', '.join(games)}")
        panel.fill_between(thresholds, *intervals[label], color=color, alpha=0.15, linewidth=0)
    panel.set(xlabel="human-normalised score", ylabel="share of runs above it", ylim=(0, 1.02))
    figure.legend(loc="outside lower center", fontsize=8)
    return figure
