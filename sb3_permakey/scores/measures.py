"""How well points hit objects: pure functions of points, boxes and frames' episodes.

Points are (y, x) in [-1, 1] as from a detector; their pixel place counts edges, so that the first pixel's centre, -1,
is at 0.5 and the last one's, +1, at 83.5.
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np

from sb3_permakey.envs.distractors import BAR_WIDTH_PX, NO_BAR
from sb3_permakey.keypoints.layers import IMAGE_SIZE
from sb3_permakey.keypoints.peaks import match_keypoints
from sb3_permakey.scores.ground_truth import LONGEST_MOVE_PX, FrameObjects, box_centers

CATEGORY_SCORES = ("recall", "tracking", "motion_error_px")
"""What is told of each category of objects alone."""


class Tally(NamedTuple):
    """A ratio's two parts, so that frames can be pooled: numbers, or arrays with one entry per frame."""

    hits: float | np.ndarray
    total: float | np.ndarray


def pixel_places(points: np.ndarray) -> np.ndarray:
    """Points in [-1, 1] as places in pixels, counted from the frame's upper left edge."""
    return (points + 1) / 2 * (IMAGE_SIZE - 1) + 0.5


def box_distances(places: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Euclidean distances in pixels from places (..., K, 2) to boxes (N, 4), 0 inside: (..., K, N)."""
    places = places[..., None, :]
    gaps = np.maximum(np.maximum(boxes[:, :2] - places, places - boxes[:, 2:]), 0)
    return np.hypot(gaps[..., 0], gaps[..., 1])


def precision(near: np.ndarray) -> Tally:
    """Points with an object near.

    :param near: bool (..., K, N), which points are near which objects
    """
    on_object = near.any(axis=-1)
    return Tally(on_object.sum(), on_object.size)


def precision_without_displays(near: np.ndarray, displays: np.ndarray) -> Tally:
    """Points with an object of play near, of those that are not near a display alone.

    A point on a display counts neither for nor against.

    :param near: bool (..., K, N), which points are near which objects
    :param displays: bool (N,)
    """
    on_play = near[..., ~displays].any(axis=-1)
    on_display_alone = near[..., displays].any(axis=-1) & ~on_play
    return Tally(on_play.sum(), (~on_display_alone).sum())


def recall(near: np.ndarray) -> Tally:
    """Objects with a point near; `near` as in `precision`."""
    found = near.any(axis=-2)
    return Tally(found.sum(), found.size)


def union_mask(boxes: np.ndarray) -> np.ndarray:
    """Pixels that a box (N, 4) touches: bool (84, 84)."""
    mask = np.zeros((IMAGE_SIZE, IMAGE_SIZE), dtype=bool)
    firsts, ends = np.floor(boxes[:, :2]).astype(int), np.ceil(boxes[:, 2:]).astype(int)
    for (top, left), (bottom, right) in zip(firsts, ends, strict=True):
        mask[top:bottom, left:right] = True
    return mask


def coverage(points: np.ndarray, boxes: np.ndarray, window_std: float) -> Tally:
    """The highest window exp(-distance^2 / std^2) over each pixel of the objects, as a mean over these pixels.

    :param points: (..., K, 2) in [-1, 1]
    :param boxes: (N, 4)
    :param window_std: width of the windows in the same coordinates as the points
    """
    rows, columns = np.nonzero(union_mask(boxes))
    axis = np.linspace(-1, 1, IMAGE_SIZE, dtype=np.float32)
    heights = np.exp(-(((axis - points[..., None].astype(np.float32)) / window_std) ** 2))
    highest = (heights[..., 0, :][..., rows] * heights[..., 1, :][..., columns]).max(axis=-2)
    return Tally(float(highest.sum(dtype=float)), highest.size)


def on_bars(places: np.ndarray, top: int, left: int) -> np.ndarray:
    """Whether the pixels of places (..., 2) lie on the bars that start in row `top` and column `left`, -1 for none."""
    pixels = np.clip(np.floor(places).astype(int), 0, IMAGE_SIZE - 1)
    hit = np.zeros(pixels.shape[:-1], dtype=bool)
    for axis, first in enumerate((top, left)):
        if first != NO_BAR:
            hit |= (pixels[..., axis] >= first) & (pixels[..., axis] < first + BAR_WIDTH_PX)
    return hit


def bars_area_share(top: int, left: int) -> float:
    """Share of the frame that these bars cover, which is their share of uniform points."""
    clear = [1 - BAR_WIDTH_PX / IMAGE_SIZE if first != NO_BAR else 1.0 for first in (top, left)]
    return 1 - clear[0] * clear[1]


def lasting_objects(objects_t: FrameObjects, objects_t1: FrameObjects) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the objects in both frames that are not farther apart than an object moves in a step."""
    later = {identity: index for index, identity in enumerate(objects_t1.identities)}
    pairs = [(index, later[identity]) for index, identity in enumerate(objects_t.identities) if identity in later]
    first, second = np.array(pairs, dtype=int).reshape(-1, 2).T
    near = np.linalg.norm(_moves(objects_t, objects_t1, first, second), axis=-1) <= LONGEST_MOVE_PX
    return first[near], second[near]


def kept_points(
    places_t: np.ndarray, places_t1: np.ndarray, boxes_t: np.ndarray, boxes_t1: np.ndarray, margin_px: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which point is each object's own, and whether it stays there.

    An object's point is the one nearest to its box, of several inside the box the one nearest to its centre; it has
    one where that is near. The point is kept when the same point is near the object at t + 1.

    :param places_t: (..., K, 2), points' places in pixels
    :param places_t1: (..., K, 2), the same points' a step later
    :param boxes_t: (N, 4), objects of the first frame
    :param boxes_t1: (N, 4), the same objects of the second
    :param margin_px: largest distance from a box that is near
    :return: (..., N) each: the point's index, whether the object has it, whether it has it and keeps it
    """
    distances = box_distances(places_t, boxes_t)
    nearest = distances.min(axis=-2)
    to_centers = np.linalg.norm(places_t[..., None, :] - box_centers(boxes_t), axis=-1)
    own = np.where(distances == nearest[..., None, :], to_centers, np.inf).argmin(axis=-2)
    later = np.take_along_axis(box_distances(places_t1, boxes_t1), own[..., None, :], axis=-2)[..., 0, :]
    has_point = nearest <= margin_px
    return own, has_point, has_point & (later <= margin_px)


def tracking(
    places_t: np.ndarray, places_t1: np.ndarray, objects_t: FrameObjects, objects_t1: FrameObjects, margin_px: float
) -> Tally:
    """Moving objects that keep their point, of those that have one.

    An object counts when it is no display, is in both frames and its box's centre moves (`lasting_objects`), and it has
    a point at t (`kept_points`).

    :param places_t: (..., K, 2), points' places in pixels
    :param places_t1: (..., K, 2), the same points' a step later
    :param objects_t: objects of the first frame
    :param objects_t1: objects of the second
    :param margin_px: largest distance from a box that is near
    """
    first, second = lasting_objects(objects_t, objects_t1)
    moves = np.linalg.norm(_moves(objects_t, objects_t1, first, second), axis=-1)
    counted = (moves > 1e-6) & ~objects_t.displays[first]
    boxes = objects_t.boxes[first[counted]], objects_t1.boxes[second[counted]]
    _, has_point, kept = kept_points(places_t, places_t1, *boxes, margin_px)
    return Tally(kept.sum(), has_point.sum())


def motion_error(
    places_t: np.ndarray, places_t1: np.ndarray, objects_t: FrameObjects, objects_t1: FrameObjects, margin_px: float
) -> Tally:
    """How far objects' points move otherwise than the objects: a sum of distances in pixels, and their number.

    Counted are all objects, also those at rest, that keep their point from t to t + 1. Arguments as of `tracking`.
    """
    first, second = lasting_objects(objects_t, objects_t1)
    boxes = objects_t.boxes[first], objects_t1.boxes[second]
    own, _, kept = kept_points(places_t, places_t1, *boxes, margin_px)
    point_moves = np.take_along_axis(places_t1 - places_t, own[..., None], axis=-2)
    errors = np.linalg.norm(point_moves - _moves(objects_t, objects_t1, first, second), axis=-1)
    return Tally(errors[kept].sum(), kept.sum())


def _moves(objects_t: FrameObjects, objects_t1: FrameObjects, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Moves (N, 2) of box centres between these objects of two frames."""
    return box_centers(objects_t1.boxes[second]) - box_centers(objects_t.boxes[first])


def matched_distances(points: np.ndarray) -> np.ndarray:
    """Stability: mean distance in pixels of points matched between checkpoints, (N,), mean over pairs of checkpoints.

    :param points: (S, N, K, 2) in [-1, 1], of S checkpoints on the same N frames
    :raises ValueError: for fewer than two checkpoints
    """
    if len(points) < 2:
        raise ValueError(f"stability compares checkpoints, but there is {len(points)}")
    distances = [
        [
            np.linalg.norm(frame - other_frame[match_keypoints(frame, other_frame)], axis=-1).mean()
            for frame, other_frame in zip(one, other, strict=True)
        ]
        for one, other in combinations(pixel_places(points), 2)
    ]
    return np.mean(distances, axis=0)


def frame_tallies(
    points_t: np.ndarray,
    points_t1: np.ndarray,
    objects: tuple[FrameObjects, FrameObjects],
    bars: tuple[int, int] | None,
    window_std: float,
    margin_px: float,
) -> dict[str, Tally]:
    """All ratios of one pair of frames.

    :param points_t: (..., K, 2) in [-1, 1], on the first frame; leading axes are draws or checkpoints, pooled
    :param points_t1: (..., K, 2), the same points' on the second
    :param objects: of both frames
    :param bars: first row and first column of the distractor's bars
    :param window_std: width of the windows
    :param margin_px: largest distance from a box that is near
    """
    boxes, displays = objects[0].boxes, objects[0].displays
    places = pixel_places(points_t)
    near = box_distances(places, boxes) <= margin_px
    hits_on_bars = on_bars(places, *bars) if bars else np.zeros(0)
    return {
        "precision": precision(near),
        "recall": recall(near),
        "precision_without_displays": precision_without_displays(near, displays),
        "recall_without_displays": recall(near[..., ~displays]),
        "coverage": coverage(points_t, boxes, window_std),
        "coverage_without_displays": coverage(points_t, boxes[~displays], window_std),
        "distractor_rate": Tally(hits_on_bars.sum(), hits_on_bars.size),
        "tracking": tracking(places, pixel_places(points_t1), *objects, margin_px),
    }


def category_tallies(
    points_t: np.ndarray, points_t1: np.ndarray, objects: tuple[FrameObjects, FrameObjects], margin_px: float
) -> dict[str, dict[str, Tally]]:
    """`CATEGORY_SCORES` of each category of the first frame's objects; arguments as of `frame_tallies`."""
    places = pixel_places(points_t), pixel_places(points_t1)
    tallies = {}
    for category in sorted(set(objects[0].categories)):
        alone = objects[0].of_category(category), objects[1].of_category(category)
        found = (
            recall(box_distances(places[0], alone[0].boxes) <= margin_px),
            tracking(*places, *alone, margin_px),
            motion_error(*places, *alone, margin_px),
        )
        tallies[category] = dict(zip(CATEGORY_SCORES, found, strict=True))
    return tallies
