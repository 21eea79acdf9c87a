from itertools import permutations

import numpy as np
import pytest
import torch

from sb3_permakey.keypoints import Keypoints, peaks
from sb3_permakey.keypoints.peaks import (
    KeypointTracker,
    error_map_peaks,
    local_contrast,
    match_keypoints,
    persisting_keypoints,
)

CELL = 2


def coordinates(*cells, cell_size=CELL):
    """Places of cells (row, column), perhaps fractions of them, in [-1, 1]."""
    return 2 * (np.array(cells) * cell_size + (cell_size - 1) / 2) / 83 - 1


def peaks_of(values, count, min_distance_px, size=8, cell_size=CELL, **settings):
    """Peaks of one map that is zero but for some cells."""
    error_map = torch.zeros(1, size, size)
    for (row, column), value in values.items():
        error_map[0, row, column] = value
    centers, heights = error_map_peaks(error_map, cell_size, count, min_distance_px, **settings)
    return centers[0].numpy(), heights[0].numpy()


def test_peaks_come_highest_first_at_their_cells():
    centers, heights = peaks_of({(1, 6): 0.5, (6, 2): 0.9}, count=2, min_distance_px=5)
    # Cell (6, 2) covers rows 12 and 13, columns 4 and 5.
    np.testing.assert_allclose(centers[0], [2 * 12.5 / 83 - 1, 2 * 4.5 / 83 - 1], atol=1e-6)
    np.testing.assert_allclose(centers[1], coordinates((1, 6))[0], atol=1e-6)
    np.testing.assert_allclose(heights, [0.9, 0.5])


@pytest.mark.parametrize(("min_distance_px", "second", "height"), [(4.0, (2, 4), 0.8), (4.1, (6, 6), 0.5)])
def test_of_two_peaks_nearer_than_the_distance_the_higher_is_taken(min_distance_px, second, height):
    centers, heights = peaks_of({(2, 2): 0.9, (2, 4): 0.8, (6, 6): 0.5}, 2, min_distance_px)
    np.testing.assert_allclose(centers, coordinates((2, 2), second), atol=1e-6)
    np.testing.assert_allclose(heights, [0.9, height])


def test_places_are_finer_than_cells():
    centers, heights = peaks_of({(3, 3): 0.6, (3, 4): 0.3, (2, 3): 0.1}, 1, 5)
    np.testing.assert_allclose(centers, coordinates((3 - 0.1, 3 + 0.3)), atol=1e-6)
    np.testing.assert_allclose(heights, [0.6])


def test_places_are_the_means_of_as_many_cells_as_wanted():
    values = {(3, 3): 0.6, (3, 5): 0.3, (1, 3): 0.1, (3, 6): 0.5}
    expected = {6.0: (3, 3), 10.0: (3 - 2 * 0.1, 3 + 2 * 0.3)}
    for side, place in expected.items():
        centers, _ = peaks_of(values, 1, 2, centroid_px=side)
        np.testing.assert_allclose(centers, coordinates(place), atol=1e-6)
    centers, _ = peaks_of({(0, 0): 0.6, (2, 0): 0.2, (0, 1): 0.2}, 1, 2, centroid_px=10.0)  # half of the square outside
    np.testing.assert_allclose(centers, coordinates((0.4, 0.2)), atol=1e-6)


def test_of_a_plateau_the_first_cell_is_taken_and_the_middle_found():
    plateau = {(row, column): 0.5 for row in (2, 3) for column in (4, 5)}
    centers, heights = peaks_of(plateau, 2, 4)
    np.testing.assert_allclose(centers[0], coordinates((2.5, 4.5))[0], atol=1e-6)
    np.testing.assert_allclose(heights, [0.5, 0])


def test_cells_near_an_earlier_peak_do_not_pull():
    centers, heights = peaks_of({(2, 2): 0.9, (2, 3): 0.8, (2, 4): 0.7}, 2, 4)
    np.testing.assert_allclose(centers[1], coordinates((2, 4))[0], atol=1e-6)
    np.testing.assert_allclose(heights, [0.9, 0.7])


def test_fewer_peaks_than_keypoints_leave_heights_of_zero():
    centers, heights = peaks_of({(6, 6): 0.8}, 3, 5)
    np.testing.assert_allclose(centers, coordinates((6, 6), (0, 0), (0, 3)), atol=1e-6)
    np.testing.assert_allclose(heights, [0.8, 0, 0])
    centers, heights = peaks_of({(6, 6): 0.8}, 3, 100)  # one peak takes all cells
    np.testing.assert_allclose(centers, coordinates((6, 6), (0, 0), (0, 0)), atol=1e-6)
    np.testing.assert_allclose(heights, [0.8, 0, 0])


def test_cells_that_reach_over_the_images_edge_stay_inside():
    centers, _ = peaks_of({(10, 0): 1.0}, 1, 5, size=11, cell_size=8)  # rows 80 to 87
    np.testing.assert_allclose(centers, [[1.0, 2 * 3.5 / 83 - 1]], atol=1e-6)


def slow_peaks(error_map, cell_size, count, min_distance_px, reach):
    """The definition, cell by cell."""
    size = len(error_map)
    cells = [(row, column) for row in range(size) for column in range(size)]
    free, centers, heights = set(cells), [], []
    for _ in range(count):
        peak = max(sorted(free), key=lambda cell: error_map[cell]) if free else cells[0]
        around = [cell for cell in free if np.abs(np.subtract(cell, peak)).max() <= reach and peak in free]
        total = sum(error_map[cell] for cell in around)
        place = [
            sum(error_map[cell] * cell[axis] for cell in around) / total if total else peak[axis] for axis in (0, 1)
        ]
        centers.append(np.clip(coordinates(place, cell_size=cell_size)[0], -1, 1))
        heights.append(error_map[peak] if peak in free else 0.0)
        near = {cell for cell in free if cell_size * np.hypot(cell[0] - peak[0], cell[1] - peak[1]) < min_distance_px}
        free -= near
    return np.stack(centers), np.array(heights)


@pytest.mark.parametrize(
    ("cell_size", "min_distance_px", "levels", "centroid_px", "reach"),
    [(2, 5.0, 10_000, 6.0, 1), (2, 1.0, 4, 6.0, 1), (4, 9.0, 4, 6.0, 1), (2, 5.0, 100, 10.0, 2), (2, 1.0, 4, 15.0, 3)],
)
def test_equals_the_definition_on_random_maps(cell_size, min_distance_px, levels, centroid_px, reach):
    # Few levels make ties, and a large distance on 12x12 cells leaves none free.
    maps = np.random.default_rng(0).integers(levels, size=(5, 12, 12)) / levels
    centers, heights = error_map_peaks(torch.from_numpy(maps), cell_size, 20, min_distance_px, centroid_px)
    for index, error_map in enumerate(maps):
        expected_centers, expected_heights = slow_peaks(error_map, cell_size, 20, min_distance_px, reach)
        np.testing.assert_allclose(heights[index], expected_heights, atol=1e-6)
        np.testing.assert_allclose(centers[index], expected_centers, atol=1e-5)


@pytest.mark.parametrize(("min_distance_px", "levels", "centroid_px"), [(5.0, 10_000, 6.0), (9.0, 4, 15.0)])
def test_those_of_a_gpus_operations_are_the_same(min_distance_px, levels, centroid_px):
    maps = torch.from_numpy(np.random.default_rng(1).integers(levels, size=(5, 12, 12)) / levels).float()
    expected, heights = error_map_peaks(maps, 2, 20, min_distance_px, centroid_px)
    reach = peaks._reach(centroid_px, 2, least=1)
    arrays = peaks._surroundings(12, 2, min_distance_px, reach, torch.device("cpu"))
    surroundings = peaks._Surroundings(*arrays[:2], *map(torch.from_numpy, arrays[2:]))
    cells, values = peaks._picked_on_the_device(maps, 20, surroundings)
    centers = peaks._means(cells, values, surroundings, 2, torch.stack)
    assert torch.allclose(centers.clamp(-1, 1), expected, atol=1e-6)
    assert torch.equal(values[..., values.shape[-1] // 2].clamp_min(0), heights)


def slow_local_contrast(error_map, reach):
    """The definition, cell by cell."""
    contrast = np.zeros_like(error_map)
    for row, column in np.ndindex(*error_map.shape):
        near, around = (
            error_map[max(row - r, 0) : row + r + 1, max(column - r, 0) : column + r + 1].mean() for r in (1, reach)
        )
        contrast[row, column] = max(near - around, 0)
    return contrast


@pytest.mark.parametrize(("cell_size", "surround_px", "reach"), [(2, 18.0, 4), (2, 10.0, 2), (4, 28.0, 3), (4, 1.0, 2)])
def test_contrast_equals_the_definition(cell_size, surround_px, reach):
    maps = np.random.default_rng(2).random((3, 12, 12))
    contrast = local_contrast(torch.from_numpy(maps), cell_size, surround_px)
    for error_map, found in zip(maps, contrast.numpy(), strict=True):
        np.testing.assert_allclose(found, slow_local_contrast(error_map, reach), atol=1e-12)


def test_a_spot_stands_out_more_than_a_higher_edge():
    error_map = torch.zeros(1, 21, 21)
    error_map[0, 4] = 1.0
    error_map[0, 12:15, 5:8] = 0.5
    assert error_map_peaks(error_map, CELL, 1, 5)[1].item() == 1
    centers, heights = error_map_peaks(local_contrast(error_map, CELL, 18), CELL, 1, 5)
    np.testing.assert_allclose(centers[0], coordinates((13, 6)), atol=1e-6)
    np.testing.assert_allclose(heights, [[0.5 - 0.5 * 9 / 81]])


def test_matching_moves_least_in_total():
    previous = np.array([[0.0, 0.0], [0.0, 1.0]])
    current = np.array([[0.0, 3.0], [0.0, 0.6]])  # the second is nearest to previous[1], but that costs more in total
    assert match_keypoints(previous, current).tolist() == [1, 0]


def test_matching_equals_trying_every_order():
    random = np.random.default_rng(1)
    for _ in range(10):
        previous, current = random.uniform(-1, 1, (2, 5, 2))
        orders = [list(order) for order in permutations(range(5))]
        costs = [np.linalg.norm(previous - current[order], axis=1).sum() for order in orders]
        assert match_keypoints(previous, current).tolist() == orders[int(np.argmin(costs))]


def crossing(step: int, order: list[int]) -> Keypoints:
    """Two points that pass each other 0.2 apart, in a given order; features and confidence tell which is which."""
    centers = np.array([[0.1, -0.3 + 0.1 * step], [-0.1, 0.3 - 0.1 * step]], np.float32)[order]
    names = np.array([0.0, 1.0], np.float32)[order]
    return Keypoints(centers[None], names[None, :, None], names[None])


def names_of(keypoints: Keypoints) -> list[list[float]]:
    np.testing.assert_array_equal(keypoints.features[..., 0], keypoints.confidence)
    return keypoints.confidence.tolist()


def test_tracker_follows_points_that_cross():
    tracker = KeypointTracker()
    orders = [[1, 0], [0, 1], [0, 1], [1, 0], [0, 1], [1, 0], [0, 1]]
    for step, order in enumerate(orders):
        tracked = tracker.track(crossing(step, order), [step == 0])
        assert names_of(tracked) == [[1.0, 0.0]]
        np.testing.assert_allclose(tracked.centers, crossing(step, [1, 0]).centers)


def test_tracker_starts_afresh_with_an_episode():
    tracker = KeypointTracker()
    assert names_of(tracker.track(crossing(0, [1, 0]), [True])) == [[1.0, 0.0]]
    assert names_of(tracker.track(crossing(0, [0, 1]), [False])) == [[1.0, 0.0]]
    assert names_of(tracker.track(crossing(0, [0, 1]), [True])) == [[0.0, 1.0]]
    assert names_of(tracker.track(crossing(0, [1, 0]), [False])) == [[0.0, 1.0]]


def batch_of(*parts: Keypoints) -> Keypoints:
    return Keypoints(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def test_tracker_keeps_environments_apart():
    tracker = KeypointTracker()
    first = tracker.track(batch_of(crossing(0, [1, 0]), crossing(0, [0, 1]), crossing(0, [1, 0])), [True] * 3)
    assert names_of(first) == [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    # The last frame of environment 1 and the first of its next episode, in one batch.
    second = tracker.track(
        batch_of(crossing(1, [1, 0]), crossing(1, [0, 1]), crossing(0, [1, 0]), crossing(1, [0, 1])),
        [False, False, True, False],
        rows=[1, 0, 1, 2],
    )
    assert names_of(second) == [[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]


def test_tracker_goes_on_with_some_environments():
    tracker = KeypointTracker()
    tracker.track(batch_of(crossing(0, [1, 0]), crossing(0, [0, 1])), [True, True])
    tracker.keep([1])
    assert names_of(tracker.track(crossing(1, [1, 0]), [False])) == [[0.0, 1.0]]


def test_keypoints_without_confidence_are_tracked_too():
    tracker = KeypointTracker()
    tracker.track(crossing(0, [1, 0])._replace(confidence=None), [True])
    tracked = tracker.track(crossing(1, [0, 1])._replace(confidence=None), [False])
    assert tracked.confidence is None
    assert tracked.features[0, :, 0].tolist() == [1.0, 0.0]


PIXEL = 2 / 83
LAST = np.array([[0.0, 0.0], [0.5, 0.5]])


@pytest.mark.parametrize(
    ("candidates", "heights", "expected"),
    [
        # The second keypoint's peak moved by 4 px and is a little lower than another: it goes on.
        ([[0.0, 0.0], [-0.5, -0.5], [0.5, 0.5 + 4 * PIXEL]], [0.9, 0.6, 0.4], [0, 2]),
        # Less than half as high as the other: it is given up, and the other takes its place.
        ([[0.0, 0.0], [-0.5, -0.5], [0.5, 0.5 + 4 * PIXEL]], [0.9, 0.6, 0.2], [0, 1]),
        # It moved by 9 px, so that it may be something else: the highest are taken.
        ([[0.0, 0.0], [-0.5, -0.5], [0.5, 0.5 + 9 * PIXEL]], [0.9, 0.6, 0.4], [0, 1]),
        # Both peaks are gone: the places go to the nearest of the others.
        ([[0.9, 0.4], [-0.4, -0.4], [0.0, 0.9]], [0.9, 0.6, 0.4], [1, 0]),
        # Two peaks near one keypoint: one of them is its own, the other has to be higher than the rest.
        ([[0.0, 0.0], [0.0, 6 * PIXEL], [0.5, 0.5]], [0.5, 0.5, 0.4], [0, 2]),
    ],
)
def test_a_peak_that_is_there_is_not_given_up_for_one_a_little_higher(candidates, heights, expected):
    order = persisting_keypoints(LAST, np.array(candidates), np.array(heights, np.float32), persistence=2.0)
    assert order.tolist() == expected


def test_a_tracker_with_persistence_chooses_among_candidates():
    tracker, random = KeypointTracker(2, persistence=2.0), np.random.default_rng(0)
    places, first = np.array([[0.0, 0.0], [0.5, 0.5], [-0.5, -0.5], [-0.5, 0.5]]), None
    for step in range(20):
        heights = random.uniform(0.5, 0.9, size=4).astype(np.float32)
        order = np.argsort(-heights)
        given = Keypoints(places[order][None], np.arange(4.0)[order][None, :, None], heights[order][None])
        tracked = tracker.track(given, [step == 0])
        first = tracked if first is None else first
        # None is ever twice as high as another.
        np.testing.assert_array_equal(tracked.centers, first.centers)
        np.testing.assert_array_equal(tracked.confidence[0], heights[tracked.features[0, :, 0].astype(int)])
    assert tracked.centers.shape == (1, 2, 2)


def test_one_persists_as_in_the_definition():
    """With a persistence of 1 the highest are taken, as without one, wherever they go on."""
    random = np.random.default_rng(3)
    for _ in range(50):
        candidates, heights = random.uniform(-1, 1, size=(6, 2)), np.sort(random.uniform(size=6))[::-1]
        order = persisting_keypoints(random.uniform(-1, 1, size=(3, 2)), candidates, heights, persistence=1.0)
        assert sorted(order) == [0, 1, 2]
