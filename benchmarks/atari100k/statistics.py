"""Statistics of test scores: the paper's, and those that are better suited to few runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from scipy import stats

BOOTSTRAP_SAMPLES, CONFIDENCE = 2000, 0.95


class Spread(NamedTuple):
    """A score and its standard deviation."""

    score: float
    std: float


def median_of_seeds(scores: np.ndarray) -> Spread:
    """The number of the paper's tables, as the authors' released code has it.

    For each environment seed, the mean over the policies of their mean scores; of the seeds, the one in the middle; its
    std is the root mean square of the policies' stds over that seed's episodes. Of an even number of seeds, two are in
    the middle: the lower one counts.

    :param scores: (policies, environment seeds, episodes)
    """
    of_seeds = scores.mean(axis=(0, 2))
    middle = np.argsort(of_seeds, kind="stable")[(len(of_seeds) - 1) // 2]
    stds = scores[:, middle].std(axis=1)
    return Spread(float(of_seeds[middle]), float(np.sqrt((stds**2).mean())))


def between_runs(scores: np.ndarray) -> tuple[float, float | None]:
    """Mean over all episodes, and the sample std of the runs' means: None where one run says nothing about others.

    :param scores: (runs, environment seeds, episodes)
    """
    means = scores.mean(axis=(1, 2))
    return float(means.mean()), float(means.std(ddof=1)) if len(means) > 1 else None


def difference_of_means(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the difference of two means, by Welch's t-test, which lets the two spread differently.

    It serves two or three runs, of which a bootstrap draws the same few again and promises too much.

    :param first: scores of at least two runs
    :param second: likewise
    """
    difference = np.mean(first) - np.mean(second)
    shares = [np.var(scores, ddof=1) / len(scores) for scores in (first, second)]
    variance = sum(shares)
    if variance == 0:
        return float(difference), float(difference)
    freedom = variance**2 / sum(
        share**2 / (len(scores) - 1) for share, scores in zip(shares, (first, second), strict=True)
    )
    reach = stats.t.ppf(0.5 + CONFIDENCE / 2, freedom) * np.sqrt(variance)
    return float(difference - reach), float(difference + reach)


def interquartile_mean(values: np.ndarray) -> float:
    """Mean of the middle half: a quarter of the values, rounded down, is left out at each end."""
    ordered = np.sort(values, axis=None)
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def human_normalised(score: float, random: float, human: float) -> float:
    """0 for the random policy, 1 for a human player."""
    return (score - random) / (human - random)


class Interval(NamedTuple):
    """An interquartile mean with its bootstrap interval."""

    iqm: float
    low: float
    high: float


@contextmanager
def same_draws() -> Iterator[None]:
    """Numpy's global random state set to the same seed within: rliable draws from it, whatever `random_state` says."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)


def iqm_intervals(scores: Mapping[str, np.ndarray]) -> dict[str, Interval]:
    """Interquartile means over runs and games with 95 % intervals of a bootstrap over runs, stratified by games.

    :param scores: for each method (runs, games), normalised
    :raises ImportError: when rliable is not installed
    """
    from rliable import library, metrics

    with same_draws():
        points, intervals = library.get_interval_estimates(
            dict(scores),
            lambda values: np.array([metrics.aggregate_iqm(values)]),
            reps=BOOTSTRAP_SAMPLES,
            confidence_interval_size=CONFIDENCE,
        )
    return {name: Interval(float(points[name][0]), *(float(end) for end in intervals[name][:, 0])) for name in scores}


def performance_profiles(
    scores: Mapping[str, np.ndarray], thresholds: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Share of runs above each threshold (T,), and its bootstrap interval (2, T), for each method.

    :param scores: for each method (runs, games), normalised
    :param thresholds: T
    :raises ImportError: when rliable is not installed
    """
    from rliable import library

    with same_draws():
        return library.create_performance_profile(dict(scores), thresholds, reps=BOOTSTRAP_SAMPLES // 10)
