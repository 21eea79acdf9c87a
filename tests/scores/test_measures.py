import math

import numpy as np
import pytest
from objects_by_hand import objects
from PIL import Image

from sb3_permakey.envs.distractors import BarPlaces
from sb3_permakey.scores import (
    FrameObjects,
    LabelledFrames,
    grid_points,
    random_points,
    score_categories,
    score_keypoints,
    score_stability,
)
from sb3_permakey.scores import measures as m
from sb3_permakey.scores.labelled import evenly_spread
from sb3_permakey.scores.pictures import DISPLAY_COLOR, OBJECT_COLOR, draw_objects
from sb3_permakey.scores.statistics import pooled_estimates


def at(*places: tuple[float, float]) -> np.ndarray:
    """Points in [-1, 1] at places in pixels, counted from the edge."""
    return (np.array(places, dtype=float) - 0.5) / 83 * 2 - 1


def labelled(pairs: list[tuple[FrameObjects, FrameObjects]], episodes: list[int], bars=None) -> LabelledFrames:
    frames = np.zeros((len(pairs), 2, 84, 84, 3), np.uint8)
    return LabelledFrames("Drawn", frames, pairs, np.array(episodes), bars)


def test_pixel_places():
    assert m.pixel_places(np.array([-1.0, 0.0, 1.0])).tolist() == [0.5, 42.0, 83.5]


def test_box_distances():
    boxes = np.array([[10.0, 10, 20, 30]])
    places = np.array([[15.0, 15], [7, 15], [24, 34], [10, 10], [15, 32.5]])
    assert m.box_distances(places, boxes)[:, 0].tolist() == pytest.approx([0, 3, math.hypot(4, 4), 0, 2.5])


def test_precision_and_recall():
    boxes = np.array([[10.0, 10, 20, 20], [40, 40, 44, 44]])
    # On the first box, 3 px above it, 3.1 px above it, nowhere.
    places = np.array([[15.0, 15], [7, 15], [6.9, 15], [70, 70]])
    near = m.box_distances(places, boxes) <= 3
    assert m.precision(near) == (2, 4)
    assert m.recall(near) == (1, 2)
    nothing = np.zeros((4, 0), bool)
    assert m.precision(nothing) == (0, 4)
    assert m.recall(nothing) == (0, 0)


def test_points_on_displays_count_neither_for_nor_against():
    boxes = np.array([[0.0, 0, 5, 84], [6, 40, 10, 44], [60, 60, 64, 64]])
    displays = np.array([True, False, False])
    # On the display alone, on the display and near an object, on an object, nowhere.
    places = np.array([[2.0, 10], [4, 42], [62, 62], [40, 10]])
    near = m.box_distances(places, boxes) <= 3
    assert m.precision(near) == (3, 4)
    assert m.precision_without_displays(near, displays) == (2, 3)


def test_coverage():
    # The box touches the pixels (10, 10) and (10, 11); the point is at the first one's centre.
    boxes = np.array([[10.2, 10.0, 10.9, 11.1]])
    assert m.union_mask(boxes).sum() == 2
    hits, total = m.coverage(at((10.5, 10.5)), boxes, window_std=0.1)
    assert total == 2
    assert hits == pytest.approx(1 + math.exp(-((2 / 83 / 0.1) ** 2)), rel=1e-5)
    # Of two points the better one counts for each pixel, and a second draw is pooled.
    both = np.stack([at((10.5, 10.5), (10.5, 11.5)), at((80, 80), (80, 80))])
    hits, total = m.coverage(both, boxes, window_std=0.1)
    assert (hits, total) == (pytest.approx(2, abs=1e-5), 4)
    assert m.coverage(at((10.5, 10.5)), np.zeros((0, 4)), 0.1) == (0, 0)


def test_overlapping_boxes_count_once():
    assert m.union_mask(np.array([[0.0, 0, 2, 2], [1, 1, 3, 3]])).sum() == 7


def test_points_on_bars():
    places = m.pixel_places(at((20.0, 5), (24.99, 5), (25.0, 5), (60, 30.5), (60, 40)))
    assert m.on_bars(places, 20, 30).tolist() == [True, True, False, True, False]
    assert m.on_bars(places, -1, 30).tolist() == [False, False, False, True, False]


@pytest.mark.parametrize(("top", "left"), [(20, -1), (-1, 3), (79, 0), (-1, -1)])
def test_area_of_bars(top, left):
    pixels = m.pixel_places(np.stack(np.meshgrid(*[np.linspace(-1, 1, 84)] * 2), axis=-1))
    assert m.bars_area_share(top, left) == pytest.approx(m.on_bars(pixels, top, left).mean())


def test_tracking():
    first = objects((10, 10, 14, 14), (30, 30, 34, 34), (50, 50, 54, 54), (70, 70, 74, 74), displays=(3,))
    second = objects((10, 18, 14, 22), (30, 40, 34, 44), (50, 50, 54, 54), (70, 76, 74, 80), displays=(3,))
    places = np.array([[12.0, 12], [32, 32], [52, 52], [72, 72]])
    # The first point moves with its object, the second stays behind; the third object rests, the last is a display.
    later = np.array([[12.0, 21], [32, 32], [52, 52], [72, 78]])
    assert m.tracking(places, later, first, second, 3.0) == (1, 2)
    # An object that nobody is near does not count, nor one that is gone or has jumped.
    assert m.tracking(places[:1], later[:1], first, second, 3.0) == (1, 1)
    assert m.tracking(places, later, first, objects((10, 10, 14, 14), names="z"), 3.0) == (0, 0)
    assert m.tracking(places, later, first, objects((10, 40, 14, 44), names="a"), 3.0) == (0, 0)
    assert m.tracking(places, later, first, objects(), 3.0) == (0, 0)


def test_the_tracked_point_is_the_nearest_one():
    first, second = objects((10, 10, 20, 20)), objects((10, 20, 20, 30))
    # Both are inside; the second is nearer to the centre. It goes on with the object, the first does not.
    places, later = np.array([[11.0, 11], [15, 16]]), np.array([[11.0, 11], [15, 26]])
    assert m.tracking(places, later, first, second, 3.0) == (1, 1)
    assert m.tracking(places, later[::-1], first, second, 3.0) == (0, 1)
    # Another point that comes near later does not help.
    assert m.tracking(np.array([[15.0, 15], [60, 60]]), np.array([[60.0, 60], [15, 25]]), first, second, 3.0) == (0, 1)


def test_motion_error():
    first = objects((10, 10, 14, 14), (30, 30, 34, 34), (50, 50, 54, 54))
    second = objects((10, 16, 14, 20), (30, 30, 34, 34), (50, 60, 54, 64))
    places = np.array([[12.0, 12], [32, 32], [52, 52]])
    # The first object's point moves 6 px as it does and 1 px down; the second's shakes by (3, 4) px at rest; the third
    # loses its point, which tracking tells.
    later = np.array([[13.0, 18], [35, 36], [52, 52]])
    assert m.motion_error(places, later, first, second, 3.0) == (6, 2)
    # Where on the object the point lies does not matter, only that it stays there.
    assert m.motion_error(places - 1, later - 1, first, second, 3.0) == (6, 2)
    assert m.motion_error(places, later, first, objects((10, 40, 14, 44), names="a"), 3.0) == (0, 0)
    assert m.motion_error(places, later, objects(), objects(), 3.0) == (0, 0)


def test_categories_are_scored_alone():
    names = ("Fish 0", "Fish 1", "Score 0")
    boxes = np.array([[10.0, 10, 14, 14], [40, 40, 44, 44], [70, 70, 74, 74]])
    shown = FrameObjects(boxes, ("Fish", "Fish", "Score"), names, np.array([False, False, True]))
    moved = shown._replace(boxes=boxes + np.array([[0, 6, 0, 6], [0, 0, 0, 0], [0, 0, 0, 0]]))
    bird = objects((20, 20, 24, 24))._replace(categories=("Bird",), identities=("Bird 0",))
    drawn = labelled([(shown, moved), (bird, bird)], [0, 1])
    centers_t = np.stack([at((12, 12), (72, 72)), at((22, 22), (80, 3))])
    centers_t1 = np.stack([at((12, 20), (75, 72)), at((22, 22), (80, 3))])
    figures = score_categories(centers_t, centers_t1, drawn)
    assert list(figures) == ["Bird", "Fish", "Score"]
    values = {(name, figure): value.value for name, found in figures.items() for figure, value in found.items()}
    assert values["Fish", "recall"] == 1 / 2
    assert values["Fish", "tracking"] == 1
    assert values["Fish", "motion_error_px"] == pytest.approx(2)
    assert values["Score", "motion_error_px"] == pytest.approx(3)
    assert (values["Bird", "recall"], values["Bird", "motion_error_px"]) == (1, pytest.approx(0))
    # A display and what rests are not tracked.
    assert math.isnan(values["Score", "tracking"])
    assert math.isnan(values["Bird", "tracking"])


def test_stability():
    pytest.importorskip("scipy")
    one = at((10, 10), (20, 20))
    # The same points in another order, one of them 3 px farther down.
    other = at((23, 20), (10, 10))
    far = at((10, 14), (23, 24))
    points = np.stack([one, other])[:, None]
    assert m.matched_distances(points).tolist() == pytest.approx([1.5])
    three = np.stack([one, other, far])[:, None]
    assert m.matched_distances(three).tolist() == pytest.approx([(1.5 + (4 + 5) / 2 + 4) / 3])
    figure = score_stability(np.repeat(points, 3, axis=1), np.array([0, 0, 1]))
    assert figure == pytest.approx((1.5, 1.5, 1.5))
    with pytest.raises(ValueError, match="stability compares checkpoints, but there is 1"):
        m.matched_distances(points[:1])


def test_bootstrap_is_the_slow_one():
    random = np.random.default_rng(1)
    episodes = np.array([3, 3, 5, 5, 5, 9])
    tallies = {
        name: m.Tally(random.integers(0, 4, 6), random.integers(4, 9, 6)) for name in ("precision", "recall", "other")
    }
    figures = pooled_estimates(tallies, episodes, resamples=50, seed=7)
    drawn = np.random.default_rng(7).integers(3, size=(50, 3))
    samples = {name: [] for name in (*tallies, "f1")}
    for choice in drawn:
        frames = [frame for index in choice for frame in np.flatnonzero(episodes == [3, 5, 9][index])]
        for name, (hits, total) in tallies.items():
            samples[name].append(sum(hits[frames]) / sum(total[frames]))
        p, r = samples["precision"][-1], samples["recall"][-1]
        samples["f1"].append(2 * p * r / (p + r))
    for name, values in samples.items():
        assert figures[name][1:] == pytest.approx(tuple(np.percentile(values, (2.5, 97.5))))
    assert figures["other"].value == pytest.approx(tallies["other"].hits.sum() / tallies["other"].total.sum())


def test_what_was_never_counted_is_no_number():
    tallies = {"precision": m.Tally(np.zeros(2), np.ones(2)), "recall": m.Tally(np.zeros(2), np.zeros(2))}
    figures = pooled_estimates(tallies, np.array([0, 1]))
    assert figures["precision"] == (0, 0, 0)
    assert all(math.isnan(value) for name in ("recall", "f1") for value in figures[name])


def test_f1_of_nothing_found_is_zero():
    tallies = {"precision": m.Tally(np.zeros(2), np.ones(2)), "recall": m.Tally(np.zeros(2), np.ones(2))}
    assert pooled_estimates(tallies, np.array([0, 1]))["f1"] == (0, 0, 0)


def test_scores_pool_frames_and_draws():
    first = objects((10, 10, 14, 14), (70, 70, 74, 74), displays=(1,))
    second = objects((10, 16, 14, 20), (70, 70, 74, 74), displays=(1,))
    empty = objects((40, 40, 44, 44))
    drawn = labelled([(first, second), (empty, empty)], [0, 1], BarPlaces(np.array([20, 50]), np.array([-1, -1])))
    on, off = at((12, 12), (72, 72)), at((22, 3), (60, 3))
    followed = at((12, 18), (72, 72))
    # One draw hits both objects of the first frame, the other draw none; nothing is hit in the second frame.
    figures = score_keypoints(np.stack([[on, off], [off, off]]), np.stack([[followed, off], [off, off]]), drawn, 0.1)
    values = {name: figure.value for name, figure in figures.items()}
    assert values["precision"] == 2 / 8
    assert values["recall"] == 2 / 6
    assert values["f1"] == pytest.approx(2 * (1 / 4) * (1 / 3) / (1 / 4 + 1 / 3))
    assert values["precision_without_displays"] == 1 / 7
    assert values["recall_without_displays"] == 1 / 4
    assert values["distractor_rate"] == 1 / 8
    assert values["tracking"] == 1
    assert 0 < values["coverage_without_displays"] < values["coverage"] < 1


def test_points_must_fit_the_frames():
    drawn = labelled([(objects(), objects())] * 2, [0, 1])
    with pytest.raises(ValueError, match=r"points must be \(\.\.\., 2, K, 2\)"):
        score_keypoints(np.zeros((3, 4, 2)), np.zeros((3, 4, 2)), drawn, 0.1)
    with pytest.raises(ValueError, match="both frames must have the same points"):
        score_keypoints(np.zeros((2, 4, 2)), np.zeros((2, 5, 2)), drawn, 0.1)


def test_grid():
    # 2 x 2 cells of 42 px.
    assert m.pixel_places(grid_points(4)) == pytest.approx(np.array([[21, 21], [21, 63], [63, 21], [63, 63]]))
    # 3 of them: the cells 0, 2 and 3 of 4.
    assert m.pixel_places(grid_points(3)) == pytest.approx(np.array([[21, 21], [63, 21], [63, 63]]))
    # 10 of 3 x 4 cells of 28 x 21 px.
    places = m.pixel_places(grid_points(10))
    assert set(places[:, 0].round(6)) == {14, 42, 70}
    assert set(places[:, 1].round(6)) == {10.5, 31.5, 52.5, 73.5}
    for count in (1, 2, 5, 7, 8, 12, 20, 25):
        points = grid_points(count)
        assert len({tuple(point) for point in points}) == count
        assert np.abs(points).max() < 1


def test_random_points():
    points = random_points(3, 100, 10, seed=1)
    assert points.shape == (3, 100, 10, 2)
    assert np.abs(points).max() <= 1
    assert points.mean() == pytest.approx(0, abs=0.03)
    assert (random_points(3, 100, 10, seed=1) == points).all()
    assert (random_points(3, 100, 10, seed=2) != points).any()


def test_evenly_spread():
    assert evenly_spread(10, 2) == [2, 7]
    assert evenly_spread(3, 5) == [0, 1, 2]
    assert evenly_spread(0, 5) == []


def test_objects_are_drawn_around_their_pixels():
    picture = draw_objects(Image.new("RGB", (252, 252)), objects((10, 20, 12, 23), (50, 50, 60, 60), displays=(1,)), 3)
    drawn = np.asarray(picture)
    assert np.argwhere((drawn == OBJECT_COLOR).all(axis=-1)).min(axis=0).tolist() == [30, 60]
    assert np.argwhere((drawn == OBJECT_COLOR).all(axis=-1)).max(axis=0).tolist() == [35, 68]
    assert (drawn[150, 150] == DISPLAY_COLOR).all()
