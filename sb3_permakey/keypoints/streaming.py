"""Exact streaming: a patch whose surroundings were seen before has the error that it had then.

What an LSPN says of a patch depends on the pixels of a window around it and on nothing else. In play most windows are
those of an earlier frame, of this environment or of another one, so that their errors can be looked up. Only windows
that were never seen, or were forgotten, are computed, from the current frame alone: nothing adds up over time, and
resets and the order of environments make no difference.

Windows are told apart by 64-bit hashes. Of a million different ones, two have the same with a chance below one in ten
million.

Whole frames come back as well: games begin alike, and a greedy agent plays the same game again. Their keypoints need
no computation at all.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np

from sb3_permakey.keypoints.layers import IMAGE_SIZE, TrunkShape, same_padding
from sb3_permakey.keypoints.model import Keypoints

CAPACITY = 2**20
"""Errors that a memory holds, 12 bytes each."""
FRAMES = 2**12
"""Frames whose keypoints a memory holds, 264 bytes for each keypoint of 64 channels."""
WAYS = 4
"""Slots in which an error can lie; the table is a cache of so many ways."""
SCRAMBLE, OUTSIDE = np.uint64(0xD6E8FEB86659FD93), np.uint64(0x9E3779B97F4A7C15)
"""Arbitrary odd numbers: the factor that mixes a hash's bits, and the code of a pixel outside the image."""


@dataclass(frozen=True)
class Windows:
    """The windows of pixels on which a layer's patches depend; patch i sees pixels first + stride i and on."""

    first: int
    """First pixel of the first window; negative, outside the image."""
    size: int
    """Pixels along a side."""
    stride: int
    """Pixels from one window to the next."""
    count: int
    """Windows along a side."""


def patch_windows(shape: TrunkShape, layer: int, patch_size: int, around: int = 1) -> Windows:
    """Windows of a layer's patches: the pixels on which the cells of a patch and of its neighbours depend.

    :param shape: of the encoder
    :param layer: the layer
    :param patch_size: side of a patch in cells of the layer's map
    :param around: patches on each side that belong to a patch's neighbours; 1 for those that an LSPN predicts from
    """
    kernels, strides = shape.kernels[: layer + 1], shape.strides[: layer + 1]
    sizes = (IMAGE_SIZE, *shape.map_sizes())
    first, last, step = -around * patch_size, (around + 1) * patch_size - 1, patch_size
    for size, kernel, stride in reversed(list(zip(sizes, kernels, strides, strict=False))):
        before, _ = same_padding(size, kernel, stride)
        first, last, step = first * stride - before, last * stride - before + kernel - 1, step * stride
    return Windows(first, last - first + 1, step, -(-sizes[layer + 1] // patch_size))


def colour_codes(frames: np.ndarray) -> np.ndarray:
    """A hash uint64 (B, 84, 84) of each pixel's colour, of frames (B, 84, 84, C) of any unsigned integers."""
    return _mix(frames @ _random_odd_numbers(frames.shape[-1], seed=0))


class WindowHasher:
    """Hashes of all windows of frames.

    A window's hash is the sum over its pixels of the colour's code times a random odd number of the row and one of the
    column. Pixels outside the image have a code of their own, by which windows at the border differ from those inside.

    :param windows: which pixels
    """

    def __init__(self, windows: Windows) -> None:
        self.windows = windows
        self.of_row, self.of_column = (_random_odd_numbers(windows.size, seed) for seed in (1, 2))

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        """Hashes uint64 (B, count, count), odd, of the codes (B, 84, 84) of `colour_codes`."""
        stride, count = self.windows.stride, self.windows.count
        batch, side = len(codes), stride * (count - 1) + self.windows.size
        framed = np.full((batch, side, side), OUTSIDE)
        inside = slice(-self.windows.first, IMAGE_SIZE - self.windows.first)
        framed[:, inside, inside] = codes
        of_image, of_row, of_column = framed.strides
        along_rows: np.ndarray = np.ndarray(
            (batch, side, count, len(self.of_column)),
            framed.dtype,
            framed,
            strides=(of_image, of_row, stride * of_column, of_column),
        )
        sums = _mix(np.einsum("...k,k->...", along_rows, self.of_column))
        of_image, of_row, of_column = sums.strides
        along_columns: np.ndarray = np.ndarray(
            (batch, count, count, len(self.of_row)),
            sums.dtype,
            sums,
            strides=(of_image, stride * of_row, of_column, of_row),
        )
        return np.einsum("...k,k->...", along_columns, self.of_row) | np.uint64(1)


class PatchMemory:
    """Errors of patches by their windows' hashes; bounded, an error that finds no free slot takes an older one's.

    `computed` counts the errors that were not remembered.

    :param capacity: errors it holds, a power of two and at least `WAYS`
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.keys = np.zeros((capacity // WAYS, WAYS), np.uint64)
        self.errors = np.zeros((capacity // WAYS, WAYS), np.float32)
        self.computed = 0
        self._last_hashes = np.empty(0, np.uint64)
        self._last_errors = np.empty(0, np.float32)

    def recall(self, hashes: np.ndarray, compute: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Errors of patches, those that are not remembered computed and remembered.

        Most places have the window that they had in the last call, whose errors need no search.

        :param hashes: uint64 (n,), odd
        :param compute: gives the errors float32 (m,) of the patches of indices int64 (m,)
        :return: float32 (n,)
        """
        if len(hashes) == len(self._last_hashes):
            (places,) = np.nonzero(hashes != self._last_hashes)
            errors = self._last_errors.copy()
        else:
            places, errors = np.arange(len(hashes)), np.empty(len(hashes), np.float32)
        sought = hashes[places]
        buckets = self._buckets(sought)
        found = self.keys[buckets] == sought[:, None]
        errors[places] = self.errors[buckets, found.argmax(axis=1)]
        missing = places[~found.any(axis=1)]
        if len(missing):
            new, first, inverse = np.unique(hashes[missing], return_index=True, return_inverse=True)
            computed = compute(missing[first])
            errors[missing] = computed[inverse]
            self._remember(new, computed)
            self.computed += len(new)
        self._last_hashes, self._last_errors = hashes, errors
        return errors

    def _remember(self, hashes: np.ndarray, errors: np.ndarray) -> None:
        buckets = self._buckets(hashes)
        free = self.keys[buckets] == 0
        way = np.where(free.any(axis=1), free.argmax(axis=1), (hashes >> np.uint64(1)) % np.uint64(WAYS))
        way = way.astype(np.int64)
        self.keys[buckets, way] = hashes
        self.errors[buckets, way] = errors

    def _buckets(self, hashes: np.ndarray) -> np.ndarray:
        bits = np.uint64(64 - (len(self.keys) - 1).bit_length())
        return (hashes >> bits).astype(np.int64) if bits < 64 else np.zeros(len(hashes), np.int64)


class FrameMemory:
    """Keypoints of the frames that were seen last; bounded, the frame that was not asked for longest goes first.

    `detected` counts the frames that were not remembered.

    :param capacity: frames it holds
    """

    def __init__(self, capacity: int = FRAMES) -> None:
        self.capacity = capacity
        self.remembered: OrderedDict[bytes, list[np.ndarray]] = OrderedDict()
        self.detected = 0

    def recall(self, frames: np.ndarray, detect: Callable[[np.ndarray], Keypoints]) -> Keypoints:
        """Keypoints of frames, those that are not remembered detected and remembered.

        :param frames: uint8 (B, 84, 84, C)
        :param detect: gives the keypoints of some of the frames
        """
        names = [blake2b(frame, digest_size=16).digest() for frame in np.ascontiguousarray(frames)]
        new = {name: index for index, name in enumerate(names) if name not in self.remembered}
        found = {name: self.remembered[name] for name in names if name not in new}
        if new:
            arrays = [array for array in detect(frames[list(new.values())]) if array is not None]
            found |= {name: [array[row].copy() for array in arrays] for row, name in enumerate(new)}
            self.detected += len(new)
        for name in names:
            self.remembered[name] = found[name]
            self.remembered.move_to_end(name)
        while len(self.remembered) > self.capacity:
            self.remembered.popitem(last=False)
        return Keypoints(*(np.stack(rows) for rows in zip(*(found[name] for name in names), strict=True)))


@lru_cache
def _random_odd_numbers(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(2**63, size=count, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def _mix(values: np.ndarray) -> np.ndarray:
    """Scramble 64-bit values, in place."""
    values ^= values >> np.uint64(32)
    values *= SCRAMBLE
    values ^= values >> np.uint64(29)
    return values
