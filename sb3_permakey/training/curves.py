"""Learning curves from runs' folders: validations, or training episodes that SB3's Monitor wrote down.

A group of runs has one curve, on the steps that all of its runs have: the mean over runs, and Student's 95 % interval
of that mean. Of a single run the interval is over its games instead, and says nothing about other seeds.
"""

from __future__ import annotations

import csv
import json
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from sb3_permakey.training.run_folder import SETTINGS
from sb3_permakey.training.validation import VALIDATIONS

Kind = Literal["validations", "episodes"]
GroupRule = Literal["number", "parent", "none"]
MONITOR = "monitor.csv"
"""Files of SB3's Monitor end so."""
WINDOW = 100
"""Training episodes whose mean is a point of their curve, as SB3's rollout/ep_rew_mean."""
POINTS = 50
"""Of a curve of training episodes."""
CONFIDENCE = 0.95
TRAILING_NUMBER = re.compile(r"[-_. ]+(seed[-_. ]?)?\d+$", re.IGNORECASE)
NUMBER_ALONE = re.compile(r"(seed[-_. ]?)?\d+$", re.IGNORECASE)


class RunFilesError(ValueError):
    """A run whose files are missing or broken."""


class Interval(NamedTuple):
    """A mean and its 95 % interval; NaN where a single value tells none."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class RunCurve:
    """Scores of one run's games at each of its steps."""

    path: Path
    steps: np.ndarray
    """(T,) int64, agent steps, rising."""
    games: tuple[np.ndarray, ...]
    """T arrays: the scores of the games that count at each step."""

    @property
    def means(self) -> np.ndarray:
        """(T,) mean score at each step."""
        return np.array([scores.mean() for scores in self.games])


@dataclass(frozen=True)
class GroupCurve:
    """The runs of one setting, on the steps that all of them have."""

    name: str
    steps: np.ndarray
    """(T,) int64."""
    runs: tuple[RunCurve, ...]
    """All with these steps."""

    @property
    def curve(self) -> list[Interval]:
        """The mean at each step."""
        return [self._at(np.full(len(self.runs), index)) for index in range(len(self.steps))]

    @property
    def final(self) -> Interval:
        """The mean at the last step."""
        return self.curve[-1]

    @property
    def best(self) -> Interval:
        """The mean of each run's best step, which is the larger the more steps there are, by chance alone."""
        return self._at(np.array([run.means.argmax() for run in self.runs]))

    def _at(self, indices: np.ndarray) -> Interval:
        """The mean over runs, each at a step of its own."""
        if len(self.runs) == 1:
            return mean_interval(self.runs[0].games[indices[0]])
        return mean_interval(np.array([run.means[index] for run, index in zip(self.runs, indices, strict=True)]))


def mean_interval(values: np.ndarray) -> Interval:
    """Mean of independent values (n,) and Student's 95 % interval of it."""
    from scipy import stats

    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, float("nan"), float("nan"))
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def read_curves(paths: Sequence[Path], kind: Kind | None = None) -> tuple[list[RunCurve], Kind]:
    """The runs' curves, all of one kind, and which.

    :param paths: runs' folders, or single files of SB3's Monitor
    :param kind: "validations" (evaluations.npz, of `train` or SB3's EvalCallback), "episodes" (Monitor's training
        episodes), or None: validations where all runs have them
    :raises RunFilesError: when a run has no such files, or broken ones
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise RunFilesError("a run is given twice")
    for path in paths:
        if not path.exists():
            raise RunFilesError(f"no run at {path}")
    without = {one: [path for path in paths if not _files(path, one)] for one in get_args(Kind)}
    chosen: Kind = kind or ("episodes" if without["validations"] and not without["episodes"] else "validations")
    if without[chosen]:
        missing = {"validations": f"no {VALIDATIONS}", "episodes": f"no *{MONITOR}"}
        lacking = f"neither {VALIDATIONS} nor *{MONITOR}"
        both = kind is None and any(path in without["episodes"] for path in without[chosen])
        first = without[chosen][0]
        if (first / SETTINGS).exists() and chosen == "validations":
            raise RunFilesError(f"{first} was not validated yet: `train` does so now and then (--validate-every)")
        raise RunFilesError(f"{first} has {lacking if both else missing[chosen]}{_others(kind, without)}")
    if chosen == "validations":
        return [_validations(path) for path in paths], chosen
    episodes = [_episodes(path) for path in paths]
    spacing = max(-(-int(steps[-1]) // POINTS) for steps, _ in episodes)
    return [_running_mean(path, *one, spacing) for path, one in zip(paths, episodes, strict=True)], chosen


def group_runs(runs: Sequence[RunCurve], rule: GroupRule = "number") -> list[GroupCurve]:
    """Runs of one setting together, in the order in which they are given.

    :param runs: curves
    :param rule: "number": folders side by side whose names differ in a trailing number alone, or are numbers alone;
        "parent": all that lie in the same folder; "none": each run by itself
    :raises RunFilesError: when the runs of a group have no steps in common
    """
    groups: dict[Path, list[RunCurve]] = {}
    for run in runs:
        groups.setdefault(_setting(run.path, rule), []).append(run)
    names = _short_names(list(groups))
    return [_group(name, members) for name, members in zip(names, groups.values(), strict=True)]


def _others(kind: Kind | None, without: dict[Kind, list[Path]]) -> str:
    """What the sentence about a run without files adds, where the runs have files of different kinds."""
    has_some = kind is None and not set(without["validations"]) & set(without["episodes"])
    return ", but others have nothing else: compare them apart" if has_some else ""


def _files(path: Path, kind: Kind) -> list[Path]:
    if path.is_file():
        return [path] if kind == "episodes" and path.name.endswith(MONITOR) else []
    if kind == "validations":
        return [path / VALIDATIONS] if (path / VALIDATIONS).is_file() else []
    return sorted(path.glob(f"*{MONITOR}"))


def _validations(path: Path) -> RunCurve:
    file = path / VALIDATIONS
    try:
        with np.load(file) as log:
            steps, scores = log["timesteps"].astype(np.int64), log["results"].astype(np.float64)
        if scores.ndim != 2 or len(steps) != len(scores) or not scores.size:
            raise ValueError("its steps and results do not fit")
    except (ValueError, KeyError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise RunFilesError(f"{file} is not a whole file of validations ({error})") from error
    return RunCurve(path, steps, tuple(scores))


def _episodes(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Steps after which a run's training episodes ended, counted over all of its environments, and their scores."""
    ended: list[tuple[float, int, float]] = []
    for file in _files(path, "episodes"):
        try:
            with open(file, newline="") as opened:
                begun = json.loads(opened.readline().removeprefix("#"))["t_start"]
                # The last line of a run that goes on, or was killed, may be a part of one.
                rows = csv.DictReader(line for line in opened if line.endswith("\n"))
                ended += [(begun + float(row["t"]), int(row["l"]), float(row["r"])) for row in rows]
        except (ValueError, KeyError, TypeError) as error:
            raise RunFilesError(f"{file} is not a whole file of SB3's Monitor ({error})") from error
    if not ended:
        raise RunFilesError(f"{path} has no finished episode in *{MONITOR}")
    ended.sort(key=lambda episode: episode[0])
    _, lengths, scores = zip(*ended, strict=True)
    return np.cumsum(lengths), np.array(scores)


def _running_mean(path: Path, ended: np.ndarray, scores: np.ndarray, spacing: int) -> RunCurve:
    """A run's last episodes at each multiple of a number of steps, from its first episode to its last."""
    steps = np.arange(1, int(ended[-1]) // spacing + 1) * spacing
    counts = np.searchsorted(ended, steps, side="right")
    steps, counts = steps[counts > 0], counts[counts > 0]
    return RunCurve(path, steps, tuple(scores[max(count - WINDOW, 0) : count] for count in counts))


def _setting(path: Path, rule: GroupRule) -> Path:
    folder = path.resolve()
    if folder.is_file():
        folder = folder.with_name(folder.name.removesuffix(MONITOR).rstrip(".") or folder.parent.name)
    if rule == "none":
        return folder
    if rule == "parent" or NUMBER_ALONE.fullmatch(folder.name):
        return folder.parent
    return folder.with_name(TRAILING_NUMBER.sub("", folder.name))


def _short_names(settings: Sequence[Path]) -> list[str]:
    """Names of the settings' folders, each with as many of those above it as tell it from the others."""

    def name(setting: Path) -> str:
        others = [other for other in settings if other != setting]
        parts = next(
            count
            for count in range(1, len(setting.parts) + 1)
            if setting.parts[-count:] not in [other.parts[-count:] for other in others]
        )
        return "/".join(setting.parts[-parts:])

    return [name(setting) for setting in settings]


def _group(name: str, runs: Sequence[RunCurve]) -> GroupCurve:
    steps = reduce(np.intersect1d, [run.steps for run in runs])
    if not len(steps):
        raise RunFilesError(f"the runs of {name} have no steps in common: compare them by --group none")
    return GroupCurve(name, steps, tuple(_on(run, steps) for run in runs))


def _on(run: RunCurve, steps: np.ndarray) -> RunCurve:
    """A run on some of its steps alone; of a step that it has twice, the last."""
    places = {int(step): index for index, step in enumerate(run.steps)}
    return RunCurve(run.path, steps, tuple(run.games[places[int(step)]] for step in steps))
