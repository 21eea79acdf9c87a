"""Estimates from pooled frames with bootstrap intervals, and the points to compare keypoints with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from sb3_permakey.keypoints.layers import IMAGE_SIZE
from sb3_permakey.scores.labelled import LabelledFrames
from sb3_permakey.scores.measures import (
    CATEGORY_SCORES,
    Tally,
    category_tallies,
    frame_tallies,
    matched_distances,
)

RESAMPLES = 1_000
F1_PARTS = {
    "f1": ("precision", "recall"),
    "f1_without_displays": ("precision_without_displays", "recall_without_displays"),
}


class Estimate(NamedTuple):
    """A measured value with its 95 % interval; NaN where nothing was counted."""

    value: float
    low: float
    high: float


def f1(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """Harmonic mean of precision and recall, 0 where both are."""
    return 2 * precision * recall / np.where(precision + recall == 0, 1, precision + recall)


def pooled_estimates(
    tallies: Mapping[str, Tally], episodes: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Estimate]:
    """Ratios of sums over all frames, with percentile intervals from resampled episodes.

    Whole episodes are drawn with replacement, as many as there are, because frames of an episode are alike. F1 joins
    where precision and recall are there.

    :param tallies: name of each ratio, and its parts (N,) per frame
    :param episodes: (N,), each frame's episode
    :param resamples: number of resamples
    :param seed: seed of the resamples
    """
    hits, totals = (np.stack(parts) for parts in zip(*tallies.values(), strict=True))
    names, rows = np.unique(episodes, return_inverse=True)
    sums = np.zeros((len(names), 2, len(tallies)))
    np.add.at(sums, rows, np.stack([hits, totals]).transpose(2, 0, 1))
    drawn = np.random.default_rng(seed).integers(len(names), size=(resamples, len(names)))
    values = _ratios(sums.sum(axis=0)[None], list(tallies))
    samples = _ratios(sums[drawn].sum(axis=1), list(tallies))
    return {name: Estimate(float(values[name][0]), *_interval(samples[name])) for name in values}


def score_keypoints(
    centers_t: np.ndarray,
    centers_t1: np.ndarray,
    labelled: LabelledFrames,
    window_std: float,
    *,
    margin_px: float = 3.0,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Every score of keypoints, or of any points, on labelled frames.

    :param centers_t: (..., N, K, 2), (y, x) in [-1, 1], on the first frames of the N pairs; leading axes, draws or
        checkpoints, are pooled
    :param centers_t1: the same points on the second frames
    :param labelled: the frames and their objects
    :param window_std: width of the keypoints' windows
    :param margin_px: largest distance from a box that is near
    :param resamples: number of the bootstrap's resamples
    :param seed: seed of the bootstrap
    :raises ValueError: when the points' shapes do not fit
    """
    _check_points(centers_t, centers_t1, len(labelled.frames))
    per_frame = [
        frame_tallies(
            centers_t[..., index, :, :],
            centers_t1[..., index, :, :],
            objects,
            (int(labelled.bars.tops[index]), int(labelled.bars.lefts[index])) if labelled.bars else None,
            window_std,
            margin_px,
        )
        for index, objects in enumerate(labelled.objects)
    ]
    tallies = {name: Tally(*np.array([frame[name] for frame in per_frame], dtype=float).T) for name in per_frame[0]}
    return pooled_estimates(tallies, labelled.episodes, resamples=resamples, seed=seed)


def score_categories(
    centers_t: np.ndarray,
    centers_t1: np.ndarray,
    labelled: LabelledFrames,
    *,
    margin_px: float = 3.0,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, Estimate]]:
    """Scores of each category of objects alone: which ones are hit, are followed, and how exactly.

    "recall": share of the objects with a point near; "tracking": share of the moving ones that keep it for a step;
    "motion_error_px": how far, in a step, the points that are kept move otherwise than their objects. Arguments as of
    `score_keypoints`.

    :return: estimates of each category of the pairs' first frames
    :raises ValueError: when the points' shapes do not fit
    """
    _check_points(centers_t, centers_t1, len(labelled.frames))
    per_frame = [
        category_tallies(centers_t[..., index, :, :], centers_t1[..., index, :, :], objects, margin_px)
        for index, objects in enumerate(labelled.objects)
    ]
    absent = dict.fromkeys(CATEGORY_SCORES, Tally(0, 0))
    estimates = {}
    for category in sorted({category for frame in per_frame for category in frame}):
        frames = [frame.get(category, absent) for frame in per_frame]
        tallies = {name: Tally(*np.array([frame[name] for frame in frames], dtype=float).T) for name in CATEGORY_SCORES}
        estimates[category] = pooled_estimates(tallies, labelled.episodes, resamples=resamples, seed=seed)
    return estimates


def score_stability(
    centers: np.ndarray, episodes: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Mean distance in pixels between matched points of checkpoints (S, N, K, 2) on frames of these episodes (N,)."""
    distances = matched_distances(centers)
    tallies = {"stability": Tally(distances, np.ones(len(distances)))}
    return pooled_estimates(tallies, episodes, resamples=resamples, seed=seed)["stability"]


def random_points(draws: int, frames: int, count: int, seed: int = 0) -> np.ndarray:
    """Points uniform in [-1, 1]: (draws, frames, count, 2)."""
    return np.random.default_rng(seed).uniform(-1, 1, (draws, frames, count, 2))


def grid_points(count: int) -> np.ndarray:
    """A fixed grid of points (count, 2), (y, x) in [-1, 1].

    They are the centres of the cells of the smallest near-square grid with enough cells; of more cells than points, an
    even selection in reading order.
    """
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    chosen = (2 * np.arange(count) + 1) * rows * columns // (2 * count)
    places = np.stack([(chosen // columns + 0.5) / rows, (chosen % columns + 0.5) / columns], axis=-1) * IMAGE_SIZE
    return (places - 0.5) / (IMAGE_SIZE - 1) * 2 - 1


def _check_points(centers_t: np.ndarray, centers_t1: np.ndarray, count: int) -> None:
    for centers in (centers_t, centers_t1):
        if centers.ndim < 3 or centers.shape[-3] != count or centers.shape[-1] != 2 or centers.shape[-2] < 1:
            raise ValueError(f"points must be (..., {count}, K, 2), one set per frame, not {centers.shape}")
    if centers_t.shape != centers_t1.shape:
        raise ValueError(f"both frames must have the same points, not {centers_t.shape} and {centers_t1.shape}")


def _ratios(sums: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    """Ratios (R,) from summed parts (R, 2, M)."""
    ratios: dict[str, np.ndarray] = {}
    for column, name in enumerate(names):
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios[name] = sums[:, 0, column] / sums[:, 1, column]
        for f1_name, parts in F1_PARTS.items():
            if parts[1] == name and parts[0] in ratios:
                ratios[f1_name] = f1(ratios[parts[0]], ratios[name])
    return ratios


def _interval(samples: np.ndarray) -> tuple[float, float]:
    counted = samples[~np.isnan(samples)]
    if not len(counted):
        return float("nan"), float("nan")
    low, high = np.percentile(counted, (2.5, 97.5))
    return float(low), float(high)
