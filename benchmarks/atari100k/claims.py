"""What the paper claims of its scores, beside what was measured here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.atari100k.statistics import CONFIDENCE, difference_of_means
from benchmarks.atari100k.tables import PAPER_METHODS, PUBLISHED, TABLE1_COLUMNS, Groups, Kind, scores_of
from benchmarks.harness.tables import table
from benchmarks.keypoints.run import NUM_KEYPOINTS

ENCODERS = ("cnn", "gnn")
TITLES = ["", "first", "second", "the paper's means", "means here", "runs", "difference", f"{CONFIDENCE:.0%} interval"]


class Side(NamedTuple):
    """One of two kinds of runs that a claim compares: a column of the paper's tables, and what else it was."""

    column: str
    game: str
    noise: str = "clean"
    num_keypoints: int | None = None

    @property
    def kind(self) -> Kind:
        """The same among the runs made here."""
        count = self.num_keypoints or NUM_KEYPOINTS[self.game]
        return Kind(self.game, PAPER_METHODS[self.column], "paper", self.noise, count)

    @property
    def published(self) -> float | None:
        """The paper's mean; None where it has none."""
        cell: Any
        if self.num_keypoints:
            cell = PUBLISHED["table3_mspacman_keypoints"].get(self.column, {}).get(str(self.num_keypoints))
        else:
            cell = PUBLISHED["table1" if self.noise == "clean" else "table2_noisy"][self.game].get(self.column)
        return cell[0] if cell else None

    @property
    def label(self) -> str:
        """Its column's title, and what is not the paper's usual."""
        label = TABLE1_COLUMNS[self.column]
        if self.num_keypoints:
            label += f", K={self.num_keypoints}"
        return label if self.noise == "clean" else f"{label}, noisy"


Pair = tuple[Side, Side]
"""The first is said to score higher, or is compared with the second."""


def above_transporter() -> list[Pair]:
    """Table 1: PermaKey's keypoints and the Transporter's, the same encoder."""
    return [
        (Side(f"permakey_{encoder}", game), Side(f"transporter_{encoder}", game))
        for game in PUBLISHED["table1"]
        for encoder in ENCODERS
    ]


def graph_against_cnn() -> list[Pair]:
    """Table 1: both encoders, the same keypoints."""
    return [
        (Side(f"{method}_gnn", game), Side(f"{method}_cnn", game))
        for game in PUBLISHED["table1"]
        for method in ("permakey", "transporter")
    ]


def robust_to_noise() -> list[Pair]:
    """Table 2: with bars both methods against one another, and each against itself without bars."""
    pairs = []
    for game in PUBLISHED["table2_noisy"]:
        for encoder in ENCODERS:
            ours, theirs = (Side(f"{method}_{encoder}", game, "both") for method in ("permakey", "transporter"))
            pairs += [(ours, theirs), *((side, Side(side.column, game)) for side in (ours, theirs))]
    return pairs


def robust_to_number() -> list[Pair]:
    """Table 3: at each K both methods against one another."""
    return [
        (
            Side(f"permakey_{encoder}", "MsPacman", "clean", count),
            Side(f"transporter_{encoder}", "MsPacman", "clean", count),
        )
        for count in (5, 7, 10)
        for encoder in ENCODERS
    ]


CLAIMS = {
    "PermaKey's keypoints bring higher scores than the Transporter's (section 5.1)": above_transporter,
    "The GNN is better than the CNN on BattleZone and Frostbite, worse on MsPacman and Seaquest (section 5.1)": (
        graph_against_cnn
    ),
    "PermaKey scores higher than the Transporter with moving bars, and loses less by them (section 5.2)": (
        robust_to_noise
    ),
    "PermaKey scores higher than the Transporter at 5, 7 and 10 keypoints (section 5.3)": robust_to_number,
}


def claims_section(groups: Groups) -> list[str]:
    """Each claim with a table of what the paper and this project measured of it, and how often it holds."""
    lines: list[str] = []
    for sentence, pairs in CLAIMS.items():
        rows = [row_of(groups, *pair) for pair in pairs()]
        lines += [f"**{sentence}.** {verdict(rows)}", "", *table(TITLES, [list(row.cells) for row in rows]), ""]
    return lines[:-1]


class Row(NamedTuple):
    """A line of a claim's table.

    :param expected: the sign of the paper's difference; 0 where it has none
    :param found: the sign of the difference here, where the interval has one alone; 0: undecided; None: not measured
    """

    cells: tuple[str, ...]
    expected: int
    found: int | None


def row_of(groups: Groups, first: Side, second: Side) -> Row:
    """What the paper and this project measured of a pair."""
    published = (first.published, second.published)
    expected = 0 if None in published else int(np.sign(published[0] - published[1]))  # type: ignore[operator]
    names = (first.game, first.label, second.label)
    scores = [scores_of(groups.get(side.kind, ())) for side in (first, second)]
    paper = " / ".join("-" if mean is None else f"{mean:.0f}" for mean in published)
    runs = [[] if values is None else values.mean(axis=(1, 2)).tolist() for values in scores]
    here = " / ".join(f"{np.mean(means):.0f}" if means else "-" for means in runs)
    counts = " / ".join(str(len(means)) for means in runs)
    if not all(runs):
        return Row((*names, paper, here, counts, "-", "-"), expected, None)
    difference = f"{np.mean(runs[0]) - np.mean(runs[1]):+.0f}"
    if min(map(len, runs)) < 2:
        return Row((*names, paper, here, counts, difference, "-"), expected, 0)
    low, high = difference_of_means(*runs)
    found = int(np.sign(low)) if low * high > 0 else 0
    return Row((*names, paper, here, counts, difference, f"{low:+.0f} to {high:+.0f}"), expected, found)


def verdict(rows: Sequence[Row]) -> str:
    """How many of the pairs that the paper has came out here as there, how many the other way round, and so on."""
    of_paper = [row for row in rows if row.expected]
    measured = [row for row in of_paper if row.found is not None]
    same = sum(row.found == row.expected for row in measured)
    other = sum(row.found == -row.expected for row in measured)
    counts = f"{same} as there, {other} the other way round, {len(measured) - same - other} undecided"
    return f"Of the paper's {len(of_paper)} pairs {len(measured)} are measured here: {counts}."
