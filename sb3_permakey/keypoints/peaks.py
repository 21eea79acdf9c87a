"""The second readout: keypoints at the highest peaks of an error map, with identities kept from step to step.

Of the LSPN's layers the first alone is read. Its peaks score no worse than those of the layers' mean and better than
the second's (benchmarks/results/variants.md), and the other layers' predictions need not be computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sb3_permakey.keypoints.layers import IMAGE_SIZE
from sb3_permakey.keypoints.model import Keypoints

CENTROID_PX = 6.0
"""Side of the square whose mean is a peak's place: 3x3 cells of the first layer, whose side is 2 pixels."""
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

    The peaks are picked one after another, on the CPU whatever device the maps come from: each takes some microseconds,
    several times less than the same as operations on tensors.

    :param error_map: (B, h, w), not negative
    :param cell_size: side of a cell, in pixels of the image
    :param num_keypoints: K
    :param min_distance_px: least distance between the centres of two keypoints' cells, in pixels of the image
    :param centroid_px: side of that square, in pixels of the image; the nearest odd number of cells counts, at least 3
    :return: centers (B, K, 2), (y, x) in [-1, 1], and heights (B, K), the values of their cells; float32
    """
    near = _disc(cell_size, min_distance_px)
    around = _square(_reach(centroid_px, cell_size, least=1))
    # A frame around the map, so wide that every cell has all of a disc's cells, and of a square's.
    margin = max(int(min_distance_px // cell_size), _reach(centroid_px, cell_size, least=1))
    batch, height, width = error_map.shape
    free = np.full((batch, height + 2 * margin, width + 2 * margin), NOT_FREE, np.float32)
    free[:, margin : margin + height, margin : margin + width] = error_map.cpu().numpy()
    width = free.shape[-1]
    to_near, to_around = (places[:, 0] * width + places[:, 1] for places in (near, around))
    cells = np.empty((batch, num_keypoints), np.int64)
    values = np.empty((batch, num_keypoints, len(around)), np.float32)
    for of_frame, frame_cells, frame_values in zip(free.reshape(batch, -1), cells, values, strict=True):
        for keypoint in range(num_keypoints):
            cell = of_frame.argmax()
            if of_frame[cell] < 0:
                cell = margin * width + margin
            frame_cells[keypoint] = cell
            frame_values[keypoint] = of_frame[cell + to_around]
            of_frame[cell + to_near] = NOT_FREE
    weights = values.clip(min=0)
    total = weights.sum(axis=2, keepdims=True)
    shift = weights @ around.astype(np.float32) / np.where(total > 0, total, np.float32(1))
    place = np.stack(np.divmod(cells, width), axis=-1) - margin + shift
    centers = 2 * (place * cell_size + (cell_size - 1) / 2) / (IMAGE_SIZE - 1) - 1
    heights = weights[..., len(around) // 2]
    places = torch.from_numpy(centers.astype(np.float32)).clamp_(-1, 1)
    return places.to(error_map.device), torch.from_numpy(heights).to(error_map.device)


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


def match_keypoints(previous: np.ndarray, current: np.ndarray) -> np.ndarray:
    """Which of the current keypoints goes on with each of the previous ones, so that they move least in total.

    :param previous: (K, 2)
    :param current: (K, 2)
    :return: order (K,): current[order[k]] goes on with previous[k]
    """
    # Loading it takes a good part of a second, which those who do not track need not wait for.
    from scipy.optimize import linear_sum_assignment

    distances = np.linalg.norm(previous[:, None] - current[None], axis=-1)
    return linear_sum_assignment(distances)[1]


class KeypointTracker:
    """Gives the peaks of several environments an identity that lasts for an episode.

    The first keypoints of an episode stay in their order, highest peak first; later ones are put into the order in
    which they follow those of the step before.
    """

    def __init__(self) -> None:
        self._last_centers: dict[int, np.ndarray] = {}

    def track(
        self, keypoints: Keypoints, episode_starts: Sequence[bool] | np.ndarray, rows: Sequence[int] | None = None
    ) -> Keypoints:
        """The same keypoints, each frame's in the order of the one before it in its environment.

        :param keypoints: of B frames, arrays; the frames of one environment in the order of time
        :param episode_starts: (B,), True where the frame is an episode's first
        :param rows: (B,), which environment each frame comes from; None: frame i from environment i
        """
        orders = self.orders(keypoints.centers, episode_starts, rows)
        frames = np.arange(len(orders))[:, None]
        return Keypoints(*(None if values is None else values[frames, orders] for values in keypoints))

    def orders(
        self, centers: np.ndarray, episode_starts: Sequence[bool] | np.ndarray, rows: Sequence[int] | None = None
    ) -> np.ndarray:
        """The order (B, K) into which `track` puts the keypoints of each frame, whose centers are (B, K, 2)."""
        environments = range(len(centers)) if rows is None else rows
        orders = np.tile(np.arange(centers.shape[1]), (len(centers), 1))
        for index, (row, starts) in enumerate(zip(environments, episode_starts, strict=True)):
            if row in self._last_centers and not starts:
                orders[index] = match_keypoints(self._last_centers[row], centers[index])
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
