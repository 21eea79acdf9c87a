"""The tables of `benchmarks.atari100k.report`, as lines of Markdown."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.atari100k.methods import METHODS
from benchmarks.atari100k.statistics import (
    Spread,
    between_runs,
    human_normalised,
    interquartile_mean,
    iqm_intervals,
    median_of_seeds,
)
from benchmarks.harness.results import Result
from benchmarks.harness.tables import table
from benchmarks.keypoints.run import NUM_KEYPOINTS

PUBLISHED: dict[str, Any] = json.loads(Path(__file__).with_name("published_scores.json").read_text())
LATE_GAMES = "training games of the second half"
TABLE1_COLUMNS = {
    "rainbow": "Rainbow",
    "ppo": "PPO",
    "simple": "SimPLe",
    "transporter_orig": "Transporter (orig.)",
    "transporter_cnn": "Transporter + CNN",
    "transporter_gnn": "Transporter + GNN",
    "permakey_cnn": "PKey + CNN",
    "permakey_gnn": "PKey + GNN",
}
PAPER_METHODS = {
    "transporter_cnn": "transporter-cnn",
    "transporter_gnn": "transporter-gnn",
    "permakey_cnn": "permakey-cnn",
    "permakey_gnn": "permakey-gnn",
}
"""The paper's columns that are methods here."""


OWN_AGENTS = {
    "PKey peaks + GNN (strong)": ("permakey-peaks-gnn", "strong"),
    "PKey student + Rainbow": ("permakey-student-rainbow", "rainbow"),
}
"""Methods with their presets that the paper does not have."""


class Kind(NamedTuple):
    """What runs of different seeds have in common."""

    game: str
    method: str
    preset: str | None
    noise: str
    num_keypoints: int | None

    @property
    def label(self) -> str:
        """Method and preset, and what else is not the paper's usual."""
        label = METHODS[self.method].label
        if self.preset:
            label += f" ({self.preset})"
        if self.num_keypoints not in (None, NUM_KEYPOINTS.get(self.game)):
            label += f", K={self.num_keypoints}"
        return f"{label}, noisy" if self.noise != "clean" else label


Groups = dict[Kind, list[Result]]


def group_runs(results: Sequence[Result]) -> Groups:
    """Runs by kind, in the order of methods and of seeds.

    :raises ValueError: when runs of one kind had different schedules, settings or scales of novelty
    """
    groups: Groups = defaultdict(list)
    names = list(METHODS)
    for result in sorted(results, key=lambda result: (names.index(result["method"]), result["seed"])):
        groups[Kind(*(result[name] for name in Kind._fields))].append(result)
    for kind, runs in groups.items():
        for name in ("schedule", "settings", "novelty"):
            if any(run.get(name) != runs[0].get(name) for run in runs):
                raise ValueError(f"the runs of {kind.label} on {kind.game} had different {name}: report them apart")
    return dict(groups)


def scores_of(runs: Sequence[Result], test: str = "test") -> np.ndarray | None:
    """Scores (runs, environment seeds, episodes) of the tested ones; None where there are none.

    :param runs: of one kind
    :param test: of `TESTS`; older runs have the first alone, or the first two
    """
    scores = [run[test]["scores"] for run in runs if run.get(test, {}).get("scores")]
    return np.array(scores) if scores else None


def spread_cell(spread: Spread | Sequence[float] | None) -> str:
    """Score and std."""
    return "-" if spread is None else f"{spread[0]:.0f} ({spread[1]:.0f})"


def measured(groups: Groups, kind: Kind) -> str:
    """The paper's statistic of n runs made here."""
    scores = scores_of(groups.get(kind, ()))
    return "-" if scores is None else f"**{spread_cell(median_of_seeds(scores))}**, n={len(scores)}"


def table1(groups: Groups) -> list[str]:
    """Table 1 of the paper, with a line for what was measured here under each of its own."""
    rows = []
    for game, published in PUBLISHED["table1"].items():
        rows.append([game, "paper", *(spread_cell(published[column]) for column in TABLE1_COLUMNS), "-", "-"])
        here = [
            measured(groups, Kind(game, PAPER_METHODS[column], "paper", "clean", NUM_KEYPOINTS[game]))
            if column in PAPER_METHODS
            else "-"
            for column in TABLE1_COLUMNS
        ]
        ours = [measured(groups, Kind(game, *name, "clean", NUM_KEYPOINTS[game])) for name in OWN_AGENTS.values()]
        rows.append(["", "here", *here, *ours])
    return table(["game", "", *TABLE1_COLUMNS.values(), *OWN_AGENTS], rows)


def short_table(groups: Groups) -> list[str]:
    """The README's table: the mean of all test games, and each run's, beside published figures."""

    def here(game: str, method: str, preset: str | None) -> str:
        count = None if preset is None else NUM_KEYPOINTS[game]
        scores = scores_of(groups.get(Kind(game, method, preset, "clean", count), ()))
        if scores is None:
            return "-"
        each = "" if preset is None else f" ({', '.join(f'{run.mean():.0f}' for run in scores)})"
        return f"**{scores.mean():.0f}**{each}"

    rows = [
        [
            game,
            here(game, "random", None),
            here(game, "permakey-gnn", "paper"),
            *(here(game, *name) for name in OWN_AGENTS.values()),
            spread_cell(published["permakey_gnn"]),
            *(f"{PUBLISHED['other_100k_agents'][game][agent]:.0f}" for agent in ("spr", "dreamerv3")),
        ]
        for game, published in PUBLISHED["table1"].items()
    ]
    here_titles = ["random policy", "PKey + GNN", *OWN_AGENTS]
    return table(["game", *here_titles, "the paper's PKey + GNN", "SPR", "DreamerV3"], rows)


def table2(groups: Groups) -> list[str]:
    """Table 2: noisy games, both encoders."""
    rows = []
    for game, published in PUBLISHED["table2_noisy"].items():
        rows.append([game, "paper", *(spread_cell(published.get(column)) for column in PAPER_METHODS)])
        kinds = (Kind(game, method, "paper", "both", NUM_KEYPOINTS[game]) for method in PAPER_METHODS.values())
        rows.append(["", "here", *(measured(groups, kind) for kind in kinds)])
    return table(["noisy game", "", *(TABLE1_COLUMNS[column] for column in PAPER_METHODS)], rows)


def table3(groups: Groups) -> list[str]:
    """Table 3: MsPacman with other numbers of keypoints, both encoders."""
    published = PUBLISHED["table3_mspacman_keypoints"]
    rows = []
    for count in sorted({int(count) for counts in published.values() for count in counts}):
        paper = (spread_cell(published.get(column, {}).get(str(count))) for column in PAPER_METHODS)
        rows.append([str(count), "paper", *paper])
        kinds = (Kind("MsPacman", method, "paper", "clean", count) for method in PAPER_METHODS.values())
        rows.append(["", "here", *(measured(groups, kind) for kind in kinds)])
    return table(["keypoints", "", *(TABLE1_COLUMNS[column] for column in PAPER_METHODS)], rows)


def normalised(game: str, score: float) -> float | None:
    """Human-normalised score; None for a game without published ends."""
    ends = PUBLISHED["random_human"].get(game)
    return None if ends is None else human_normalised(score, *ends)


def all_runs_table(groups: Groups) -> list[str]:
    """Everything measured: both statistics of the test, human-normalised score, validations, time."""
    rows = []
    for kind, runs in sorted(groups.items(), key=lambda item: item[0].game):
        cells = [*test_cells(kind.game, runs), training_games(*runs), *validation_cells(runs)]
        rows.append([kind.game, kind.label, str(len(runs)), *cells])
    titles = ["game", "method", "runs", "paper's statistic", "mean (std of runs)", "each run", "different scores"]
    titles += ["each run with epsilon .001", "each run with sticky actions"]
    titles += ["IQM of games", "human-normalised", LATE_GAMES, "best validation", "last validation", "hours of a run"]
    return table(titles, rows)


def test_cells(game: str, runs: Sequence[Result]) -> list[str]:
    """Statistics of the final test."""
    scores = scores_of(runs)
    if scores is None:
        return ["-"] * 8
    mean, std = between_runs(scores)
    share = normalised(game, mean)
    others = [scores_of(runs, name) for name in ("test_with_exploration", "test_with_sticky_actions")]
    return [
        spread_cell(median_of_seeds(scores)),
        f"{mean:.0f}" if std is None else spread_cell((mean, std)),
        ", ".join(f"{run.mean():.0f}" for run in scores),
        ", ".join(str(len(np.unique(run))) for run in scores),
        *("-" if other is None else ", ".join(f"{run.mean():.0f}" for run in other) for other in others),
        f"{interquartile_mean(scores):.0f}",
        "-" if share is None else f"{share:.3f}",
    ]


def validation_cells(runs: Sequence[Result]) -> list[str]:
    """Means over runs of their best and their last validation, and the hours of a run."""
    curves = [validation_means(run) for run in runs if run["validation"]]
    if not curves:
        return ["-"] * 3
    best, last = np.mean([max(curve) for curve in curves]), np.mean([curve[-1] for curve in curves])
    return [f"{best:.0f}", f"{last:.0f}", f"{hours(runs):.1f}"]


def validation_means(run: Result) -> list[float]:
    """Mean score of each validation of a run."""
    return [float(np.mean(one["scores"])) for one in run["validation"]]


def trials_table(trials: Sequence[Result]) -> list[str]:
    """Runs that were made to choose settings: validations alone, one line a run."""
    rows = []
    for trial in sorted(trials, key=lambda trial: (trial["game"], trial["method"], trial["seed"])):
        curve = validation_means(trial)
        later = curve[len(curve) // 2 :]
        flat = flat_settings(trial["settings"]) | ({"novelty": trial["novelty"]} if trial.get("novelty") else {})
        settings = " ".join(f"{name}={value}" for name, value in flat.items())
        figures = [f"{np.mean(later):.0f}", f"{np.std(later):.0f}", f"{max(curve):.0f}", training_games(trial)]
        figures += [f"{hours([trial]):.1f}", trial["commit"][:7]]
        run = [trial["game"], METHODS[trial["method"]].label, str(trial["seed"]), str(trial["schedule"]["steps"])]
        rows.append([*run, f"`{settings}`", *figures])
    titles = ["game", "method", "seed", "steps", "settings", "validations of the second half", "their std", "best"]
    return table([*titles, LATE_GAMES, "hours", "commit"], rows)


def training_games(*runs: Result, first: int | None = None) -> str:
    """Mean score of the games that ended in the second half of the training, with its standard error and their number.

    They have no equals, unlike games without exploration; runs of before they were kept have none.

    :param runs: of one method on one game
    :param first: the step after which games count instead
    """
    scores = []
    for run in runs:
        games = run.get("training_games", {"steps": [], "scores": []})
        begin = run["schedule"]["steps"] / 2 if first is None else first
        scores += [score for steps, score in zip(games["steps"], games["scores"], strict=True) if steps > begin]
    if len(scores) < 2:
        return "-"
    return f"{np.mean(scores):.0f} ({np.std(scores, ddof=1) / np.sqrt(len(scores)):.0f}), n={len(scores)}"


def flat_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with those of policy and encoder among them."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= flat_settings(value) if isinstance(value, dict) else {name: value}
    return flat


def hours(runs: Sequence[Result]) -> float:
    """Mean hours of a run's training and validation."""
    return (
        float(np.mean([run["seconds"].get("training", 0) + run["seconds"].get("validation", 0) for run in runs])) / 3600
    )


def normalised_scores(groups: Groups) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """For each method its games and its runs' human-normalised mean scores (runs, games).

    Of clean games with the paper's K. Where games have different numbers of runs, the first of each count.
    """
    by_label: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for kind, runs in groups.items():
        scores = scores_of(runs)
        usual = kind.noise == "clean" and kind.num_keypoints in (None, NUM_KEYPOINTS.get(kind.game))
        if scores is not None and usual and kind.game in PUBLISHED["random_human"]:
            ends = PUBLISHED["random_human"][kind.game]
            means = scores.mean(axis=(1, 2))
            by_label[kind.label][kind.game] = np.array([human_normalised(mean, *ends) for mean in means])
    collected = {}
    for label, of_games in by_label.items():
        count = min(len(scores) for scores in of_games.values())
        games = tuple(game for game in PUBLISHED["table1"] if game in of_games)
        collected[label] = (games, np.stack([of_games[game][:count] for game in games], axis=1))
    return collected


def aggregate_table(groups: Groups) -> list[str]:
    """Interquartile means over games, with bootstrap intervals where there are several runs to draw from."""
    scores = normalised_scores(groups)
    if not scores:
        return ["No tested runs yet."]
    try:
        intervals = iqm_intervals({label: values for label, (_, values) in scores.items()})
    # rliable's own dependencies fail in ways of their own where their versions do not fit.
    except Exception as error:
        return [f"Not computed, rliable cannot be used: {error}"]
    rows = [
        [
            label,
            ", ".join(games),
            str(len(values)),
            f"{intervals[label].iqm:.3f}",
            f"{intervals[label].low:.3f} to {intervals[label].high:.3f}" if len(values) > 1 else "-",
        ]
        for label, (games, values) in scores.items()
    ]
    return table(["method", "games", "runs of each", "IQM", "95 % interval"], rows)
