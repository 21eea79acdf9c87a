"""The second readout: keypoints at the highest peaks of an error map, with identities kept from step to step.

Of the LSPN's layers the first alone is read. Its peaks score no worse than those of the layers' mean and better than
the second's (benchmarks/results/variants.md), and the other layers' predictions need not be computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sb3_permakey.keypoints.layers import IMAGE_SIZE
from sb3_permakey.keypoints.model import Keypoints

CENTROID_PX = 6.0
"""Side of the square whose mean is a peak's place: 3x3 cells of the first layer, whose side is 2 pixels."""
PERSISTENT_PX = 8.0
"""How far a peak may have moved in a step, in pixels, to be told to go on."""
CANDIDATES = 2
"""Of a frame so many times K peaks are looked at where they persist."""
NOT_FREE = -1.0
"""Value of cells that are near an earlier peak, and of those around the map; error maps are never negative."""


def error_map_peaks(
    error_map: Tensor, cell_size: int, num_keypoints: int, min_distance_px: float, centroid_px: float = CENTROID_PX
) -> tuple[Tensor, Tensor]:
    """The highest cells of error maps, each at least a distance from those before it, highest first.

    A keypoint's place is the mean of a square of cells around its own, weighted by their values; cells near an earlier
    keypoint, and those outside the map, do not count. Of equal cells the first in reading order is taken. Where only
    zeros are left, a keypoint has height 0 and lies on the first free cell, or, where none is free, on the first cell
    of the map.

    The peaks are picked one after another. On a CPU each takes some microseconds, several times less than the same as
    operations on tensors; on other devices these are for all maps at once, and the host waits for none.

    :param error_map: (B, h, w), not negative
    :param cell_size: side of a cell, in pixels of the image
    :param num_keypoints: K
    :param min_distance_px: least distance between the centres of two keypoints' cells, in pixels of the image
    :param centroid_px: side of that square, in pixels of the image; the nearest odd number of cells counts, at least 3
    :return: centers (B, K, 2), (y, x) in [-1, 1], and heights (B, K), the values of their cells; float32
    """
    reach = _reach(centroid_px, cell_size, least=1)
    surroundings = _surroundings(error_map.shape[-1], cell_size, float(min_distance_px), reach, error_map.device)
    if error_map.device.type == "cpu":
        picked = _picked_on_the_host(error_map.numpy(), num_keypoints, surroundings)
        centers = torch.from_numpy(_means(*picked, surroundings, cell_size, np.stack).astype(np.float32))
        values = torch.from_numpy(picked[1])
    else:
        cells, values = _picked_on_the_device(error_map.float(), num_keypoints, surroundings)
        centers = _means(cells, values, surroundings, cell_size, torch.stack)
    return centers.clamp_(-1, 1), values[..., values.shape[-1] // 2].clamp_min(0)


class _Surroundings(NamedTuple):
    """What lies near and around a cell of a map with a frame so wide that every cell has all of it."""

    margin: int
    """Width of the frame, in cells."""
    width: int
    """Cells of a row, with the frame."""
    around: Any
    """Rows and columns (n, 2) from a cell to those of its square, float32; an array, or a tensor where maps are."""
    to_around: Any
    """The same as steps (n,) from place to place in reading order."""
    to_near: Any
    """Steps (m,) to the cells that are nearer than the least distance."""


@cache
def _surroundings(
    columns: int, cell_size: int, min_distance_px: float, reach: int, device: torch.device
) -> _Surroundings:
    """Those of a map with so many columns and a square of so much reach; they stay, for a captured call has them."""
    around, margin = _square(reach), max(int(min_distance_px // cell_size), reach)
    width = columns + 2 * margin
    near = _disc(cell_size, min_distance_px)
    arrays = (around.astype(np.float32), *(places[:, 0] * width + places[:, 1] for places in (around, near)))
    if device.type == "cpu":
        return _Surroundings(margin, width, *arrays)
    return _Surroundings(margin, width, *(torch.from_numpy(array).to(device) for array in arrays))


def _picked_on_the_host(
    error_map: np.ndarray, count: int, surroundings: _Surroundings
) -> tuple[np.ndarray, np.ndarray]:
    """Cells (B, K), as places in their framed map, and the values around them, as they were then (B, K, n)."""
    margin, width, around, to_around, to_near = surroundings
    batch, height, _ = error_map.shape
    free = np.full((batch, height + 2 * margin, width), NOT_FREE, np.float32)
    free[:, margin:-margin, margin:-margin] = error_map
    cells = np.empty((batch, count), np.int64)
    values = np.empty((batch, count, len(around)), np.float32)
    for of_frame, frame_cells, frame_values in zip(free.reshape(batch, -1), cells, values, strict=True):
        for keypoint in range(count):
            cell = of_frame.argmax()
            if of_frame[cell] < 0:
                cell = margin * width + margin
            frame_cells[keypoint] = cell
            frame_values[keypoint] = of_frame[cell + to_around]
            of_frame[cell + to_near] = NOT_FREE
    return cells, values


def _picked_on_the_device(error_map: Tensor, count: int, surroundings: _Surroundings) -> tuple[Tensor, Tensor]:
    """The same as operations on tensors, (B, K) and (B, K, n)."""
    margin, width, _, to_around, to_near = surroundings
    free = F.pad(error_map, [margin] * 4, value=NOT_FREE).flatten(1)
    first = margin * width + margin
    cells, values = [], []
    for _ in range(count):
        highest, cell = free.max(dim=1)
        cell = torch.where(highest < 0, first, cell).unsqueeze(1)
        cells.append(cell)
        values.append(free.gather(1, cell + to_around))
        free = free.scatter(1, cell + to_near, NOT_FREE)
    return torch.cat(cells, dim=1), torch.stack(values, dim=1)


def _means(cells: Any, values: Any, surroundings: _Surroundings, cell_size: int, stack: Callable[..., Any]) -> Any:
    """Centers (B, K, 2) of cells (B, K) and the values around them (B, K, n); arrays or tensors, with their `stack`."""
    weights = values.clip(min=0)
    total = weights.sum(-1, keepdims=True)
    shift = weights @ surroundings.around / (total + (total == 0))
    places = stack((cells // surroundings.width, cells % surroundings.width), -1) - surroundings.margin + shift
    return 2 * (places * cell_size + (cell_size - 1) / 2) / (IMAGE_SIZE - 1) - 1


def local_contrast(error_map: Tensor, cell_size: int, surround_px: float) -> Tensor:
    """How far each place's error stands out from that around it, so that a spot counts for more than an edge.

    The mean of the 3x3 cells around a cell, less the mean of a square around it; cells outside the map do not count,
    and what is negative becomes zero. Along an edge the two means differ less than on a spot.

    :param error_map: (B, h, w), not negative
    :param cell_size: side of a cell, in pixels of the image
    :param surround_px: side of the square, in pixels of the image; the nearest odd number of cells is taken, at least 5
    :return: the same shape, not negative
    """
    surround_reach = _reach(surround_px, cell_size, least=2)

    def mean(reach: int) -> Tensor:
        return F.avg_pool2d(error_map, 2 * reach + 1, stride=1, padding=reach, count_include_pad=False)

    return (mean(1) - mean(surround_reach)).clamp_min(0)


def match_keypoints(previous: np.ndarray, current: np.ndarray, farthest: float = np.inf) -> np.ndarray:
    """Which of the current keypoints goes on with each of the previous ones, so that they move least in total.

    :param previous: (K, 2)
    :param current: (M, 2), M >= K
    :param farthest: longest way that counts as such; a longer one counts as this
    :return: order (K,): current[order[k]] goes on with previous[k]
    """
    # Loading it takes a good part of a second, which those who do not track need not wait for.
    from scipy.optimize import linear_sum_assignment

    distances = np.linalg.norm(previous[:, None] - current[None], axis=-1)
    return linear_sum_assignment(np.minimum(distances, farthest))[1]


def persisting_keypoints(
    previous: np.ndarray, candidates: np.ndarray, heights: np.ndarray, persistence: float
) -> np.ndarray:
    """Which candidates are the keypoints of this step, and which of the previous ones each of them goes on with.

    Candidates within `PERSISTENT_PX` of a keypoint, each keypoint's own by the matching that moves least, count
    `persistence` times as high; the K highest are taken. So a peak that is there is not given up for another that is a
    little higher in one frame. The others take the places of the keypoints that are gone, so that they move least.

    :param previous: (K, 2)
    :param candidates: (M, 2), M >= K
    :param heights: (M,)
    :param persistence: at least 1
    :return: order (K,): candidates[order[k]] goes on with previous[k]
    """
    farthest = PERSISTENT_PX * 2 / (IMAGE_SIZE - 1)
    own = match_keypoints(previous, candidates, farthest)
    goes_on = np.linalg.norm(previous - candidates[own], axis=-1) < farthest
    counted = heights.astype(np.float64)
    counted[own[goes_on]] *= persistence
    taken = np.argsort(-counted, kind="stable")[: len(previous)]
    goes_on &= np.isin(own, taken)
    order = np.where(goes_on, own, -1)
    new = np.setdiff1d(taken, order)
    if len(new):
        order[~goes_on] = new[match_keypoints(previous[~goes_on], candidates[new])]
    return order


class KeypointTracker:
    """Gives the peaks of several environments an identity that lasts for an episode.

    The first keypoints of an episode stay in their order, highest peak first; later ones are put into the order in
    which they follow those of the step before.

    :param num_keypoints: K; None: as many as are given
    :param persistence: how many times as high a peak counts that goes on, where more than K are given; see
        `persisting_keypoints`
    """

    def __init__(self, num_keypoints: int | None = None, persistence: float = 1.0) -> None:
        self.num_keypoints, self.persistence = num_keypoints, persistence
        self._last_centers: dict[int, np.ndarray] = {}

    def track(
        self, keypoints: Keypoints, episode_starts: Sequence[bool] | np.ndarray, rows: Sequence[int] | None = None
    ) -> Keypoints:
        """The same keypoints, each frame's in the order of the one before it in its environment.

        :param keypoints: of B frames, arrays, K of each or more, highest first; the frames of one environment in the
            order of time
        :param episode_starts: (B,), True where the frame is an episode's first
        :param rows: (B,), which environment each frame comes from; None: frame i from environment i
        """
        orders = self.orders(keypoints, episode_starts, rows)
        frames = np.arange(len(orders))[:, None]
        return Keypoints(*(None if values is None else values[frames, orders] for values in keypoints))

    def orders(
        self, keypoints: Keypoints, episode_starts: Sequence[bool] | np.ndarray, rows: Sequence[int] | None = None
    ) -> np.ndarray:
        """The order (B, K) into which `track` puts the keypoints of each frame, numbers of those that are given."""
        centers, heights = keypoints.centers, keypoints.confidence
        environments = range(len(centers)) if rows is None else rows
        count = self.num_keypoints or centers.shape[1]
        orders = np.tile(np.arange(count), (len(centers), 1))
        for index, (row, starts) in enumerate(zip(environments, episode_starts, strict=True)):
            last = None if starts else self._last_centers.get(row)
            if last is not None and self.persistence > 1:
                orders[index] = persisting_keypoints(last, centers[index], heights[index], self.persistence)
            elif last is not None:
                orders[index] = match_keypoints(last, centers[index, :count])
            self._last_centers[row] = centers[index][orders[index]]
        return orders

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the environments alone, numbered anew from 0."""
        self._last_centers = {new: self._last_centers[old] for new, old in enumerate(rows) if old in self._last_centers}


def _reach(side_px: float, cell_size: int, least: int) -> int:
    """How many cells a square of a side in pixels, and of an odd number of cells, reaches beyond its middle one."""
    return max(round((side_px / cell_size - 1) / 2), least)


@lru_cache
def _square(reach: int) -> np.ndarray:
    """Rows and columns (n, 2) from a cell to those of the square around it, in reading order."""
    steps = np.arange(-reach, reach + 1)
    return np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)


@lru_cache
def _disc(cell_size: int, radius_px: float) -> np.ndarray:
    """Rows and columns (n, 2) from a cell to those less than a radius away, itself among them, in reading order."""
    places = _square(int(radius_px // cell_size))
    return places[((places * cell_size) ** 2).sum(axis=1) < radius_px**2]
