"""A frozen trunk's features at many cells of many frames: cells that see the same pixels are computed once.

A cell's value depends on the pixels of a window around it and on nothing else. Of frames of play most windows are
found in other frames, or at other places too, so that few are left to compute. They are told apart by 64-bit hashes, as
in `streaming`, but nothing is kept from call to call.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sb3_permakey.keypoints.layers import IMAGE_SIZE, same_padding
from sb3_permakey.keypoints.streaming import WindowHasher, colour_codes, patch_windows
from sb3_permakey.keypoints.streaming_trunk import CellLayer, cell_layers
from sb3_permakey.keypoints.trunk import FoldedConvolutions


class DistinctFeatures(NamedTuple):
    """Features of n cells."""

    features: Tensor
    """(U, C), those that differ."""
    numbers: np.ndarray
    """int32 (n,), which of them each cell has."""


def distinct_features(
    trunk: FoldedConvolutions, images: Tensor, places: np.ndarray, largest_share: float
) -> DistinctFeatures | None:
    """Some cells of the last layer's maps of images, as `FoldedConvolutions.maps` has them within rounding.

    :param trunk: the frozen convolutions, on the CPU
    :param images: float32 (B, 84, 84, C), contiguous
    :param places: int64 (n,), the cells, as indices into the maps (B, H, W)
    :param largest_share: U / n at most
    :return: None where more cells than that see different pixels, so that whole maps are computed as quickly
    """
    shape = trunk.shape
    windows = patch_windows(shape, len(shape.kernels) - 1, patch_size=1, around=0)
    hashes = WindowHasher(windows)(colour_codes(images.numpy().view(np.uint32)))
    chosen, numbers = first_of_each(hashes.ravel()[places])
    if len(chosen) > largest_share * len(places):
        return None
    layers, sizes, cells = cell_layers(trunk), (IMAGE_SIZE, *shape.map_sizes()), places[chosen]
    inputs = []
    for index in reversed(range(len(layers))):
        cells, seen = cells_seen(cells, sizes[index + 1], layers[index], sizes[index])
        inputs.append(torch.from_numpy(seen))
    values = images.view(-1, images.shape[-1]).index_select(0, torch.from_numpy(cells))
    for layer, seen_by in zip(layers, reversed(inputs), strict=True):
        with_outside = torch.cat([values, values.new_zeros(1, values.shape[1])])
        of_windows = with_outside.index_select(0, seen_by.view(-1)).view(len(seen_by), -1)
        values = torch.addmm(layer.bias, of_windows, layer.weight).relu_()
    return DistinctFeatures(values, numbers)


def first_of_each(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One place of each different hash, and which of these every place has.

    As `numpy.unique` in another order, but without sorting: places of a bucket look at the one that came last.

    :param hashes: uint64 (n,)
    :return: int64 (U,), indices of hashes that all differ; int32 (n,), indices into these
    """
    bits = len(hashes).bit_length() + 1
    buckets = (hashes >> np.uint64(64 - bits)).astype(np.int64)
    last = np.empty(2**bits, np.int64)
    last[buckets] = np.arange(len(hashes))
    same = last[buckets]
    (others,) = np.nonzero(hashes[same] != hashes)
    _, first, inverse = np.unique(hashes[others], return_index=True, return_inverse=True)
    same[others] = others[first][inverse]
    chosen = np.zeros(len(hashes), bool)
    chosen[same] = True
    return np.flatnonzero(chosen), (np.cumsum(chosen, dtype=np.int32) - np.int32(1))[same]


def cells_seen(places: np.ndarray, size: int, layer: CellLayer, input_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The cells of a layer's input that are in the windows of some of its cells.

    :param places: int64 (n,), indices into the layer's maps (B, size, size)
    :param size: of the layer's map
    :param layer: the convolution
    :param input_size: of its input
    :return: int64 (m,), indices into the inputs (B, input_size, input_size); and int32 (n, k k), which of these a
        window's cells are, m where they lie outside the map
    """
    before, _ = same_padding(input_size, layer.kernel, layer.stride)
    # In a frame around the input, in which all windows lie.
    side = max((size - 1) * layer.stride + layer.kernel, before + input_size)
    image_and_row, column = np.divmod(places, size)
    image, row = np.divmod(image_and_row, size)
    first = (image * side + row * layer.stride) * side + column * layer.stride
    taps = np.arange(layer.kernel)
    cells = first[:, None] + (side * taps[:, None] + taps).ravel()
    framed = np.zeros((int(image.max(initial=0)) + 1, side, side), bool)
    framed.reshape(-1)[cells] = True
    inside = slice(before, before + input_size)
    seen = framed[:, inside, inside]
    found = np.flatnonzero(seen)
    numbers = np.full(framed.shape, len(found), np.int32)
    numbers[:, inside, inside][seen] = np.arange(len(found), dtype=np.int32)
    return found, numbers.reshape(-1)[cells]
