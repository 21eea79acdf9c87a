"""A frozen trunk in play: only the cells of its maps whose pixels have changed since the last frames are computed.

A cell's value depends on the pixels of a window around it and on nothing else, and it is computed from the current
frame alone: nothing adds up over time. Frames of other environments, or in another order, are frames that have changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sb3_permakey.keypoints.layers import same_padding, to_images
from sb3_permakey.keypoints.trunk import FoldedConvolutions

LARGEST_SHARE = 0.3
"""Of the first layer's cells; where more have changed, all maps are computed as a whole, which then takes less time."""

NO_FRAMES = np.empty((0, 0, 0, 0), np.uint8)


@dataclass(frozen=True)
class CellLayer:
    """A convolution as a matrix product with the windows of some of its cells."""

    weight: Tensor
    """(k k in, out); a window's rows, columns and channels one after another."""
    bias: Tensor
    """(out,)"""
    kernel: int
    stride: int


def cell_layers(trunk: FoldedConvolutions) -> list[CellLayer]:
    """A trunk's convolutions as products with some of their cells' windows."""
    return [
        CellLayer(kernel.permute(2, 3, 1, 0).flatten(0, 2).contiguous(), bias, kernel.shape[-1], stride)
        for kernel, bias, stride in trunk.layers()
    ]


class StreamingTrunk:
    """Maps of frames, by what has changed since the last call.

    `computed` counts each layer's cells that were computed.

    :param trunk: the frozen convolutions
    """

    def __init__(self, trunk: FoldedConvolutions) -> None:
        self.trunk = trunk
        self.layers = cell_layers(trunk)
        self.computed = [0 for _ in self.layers]
        self._frames = NO_FRAMES
        self._maps: list[Tensor] = []
        self._inputs: list[Tensor] = []

    def maps(self, frames: np.ndarray) -> list[Tensor]:
        """Every layer's map (B, C, H, W), channels last, valid until the next call.

        :param frames: uint8 (B, 84, 84, C)
        """
        # Until the maps are those of the new frames, an interrupted call leaves none behind that could pass for theirs.
        last, self._frames = self._frames, NO_FRAMES
        if frames.shape == last.shape:
            pixels = changed_pixels(frames, last)
            _, *cells = accumulate(self.layers, cells_that_see, initial=pixels)
            if np.count_nonzero(cells[0]) <= LARGEST_SHARE * cells[0].size:
                self._update(last, frames, pixels, cells)
                self._frames = frames.copy()
                return self._maps
        maps = self.trunk.maps(to_images(frames, self.trunk.device))
        self._maps = [layer_map.contiguous(memory_format=torch.channels_last) for layer_map in maps]
        for index, layer_map in enumerate(self._maps):
            self.computed[index] += layer_map[:, 0].numel()
        self._inputs, self._frames = [], frames.copy()
        return self._maps

    def _update(self, last: np.ndarray, frames: np.ndarray, pixels: np.ndarray, changed: list[np.ndarray]) -> None:
        """Compute what has changed: pixels (B, 84, 84), and cells (B, H, W) of each layer."""
        if not self._inputs:
            inputs = (to_images(last, self.trunk.device), *self._maps[:-1])
            self._inputs = [_framed(maps, layer) for maps, layer in zip(inputs, self.layers, strict=True)]
        self._write(0, np.flatnonzero(pixels), torch.from_numpy(frames[pixels]).float().div_(255), pixels.shape)
        for index, of_layer in enumerate(changed):
            cells = np.flatnonzero(of_layer)
            values = self._cells(index, cells, of_layer.shape)
            _rows(self._maps[index].permute(0, 2, 3, 1)).index_copy_(0, torch.from_numpy(cells), values)
            if index + 1 < len(self.layers):
                self._write(index + 1, cells, values, of_layer.shape)
            self.computed[index] += len(cells)

    def _cells(self, index: int, cells: np.ndarray, shape: tuple[int, ...]) -> Tensor:
        """Values (n, out) of a layer's cells of indices (n,), of maps of a shape (B, H, W)."""
        layer, source = self.layers[index], self._inputs[index]
        _, height, width, channels = source.shape
        image, row, column = np.unravel_index(cells, shape)
        first = (image * height + row * layer.stride) * width + column * layer.stride
        starts = first[:, None] + width * np.arange(layer.kernel)
        # A row of a window is contiguous: one strip of cells that begins at its first.
        strips = source.as_strided(
            (source.shape.numel() // channels - layer.kernel + 1, layer.kernel * channels), (channels, 1)
        )
        windows = strips.index_select(0, torch.from_numpy(starts.ravel())).view(-1, len(layer.weight))
        return torch.addmm(layer.bias, windows, layer.weight).relu_()

    def _write(self, index: int, cells: np.ndarray, values: Tensor, shape: tuple[int, ...]) -> None:
        """Write cells of indices (n,), of maps of a shape (B, H, W), into a layer's framed input."""
        layer, framed = self.layers[index], self._inputs[index]
        image, row, column = np.unravel_index(cells, shape)
        before, _ = same_padding(shape[1], layer.kernel, layer.stride)
        _, height, width, _ = framed.shape
        places = (image * height + row + before) * width + column + before
        _rows(framed).index_copy_(0, torch.from_numpy(places), values)


def changed_pixels(frames: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Where frames uint8 (B, H, W, C) differ: bool (B, H, W)."""
    differ = frames != others
    changed = differ[..., 0]
    for channel in range(1, frames.shape[-1]):
        changed = changed | differ[..., channel]
    return changed


def cells_that_see(changed: np.ndarray, layer: CellLayer) -> np.ndarray:
    """The cells of a layer whose windows hold a changed cell of its input: bool (B, H, W) -> bool (B, h, w)."""
    batch, height, width = changed.shape
    rows, columns = (tap_slices(size, layer.kernel, layer.stride) for size in (height, width))
    rows_see = np.zeros((batch, -(-height // layer.stride), width), bool)
    for cells, inputs in rows:
        rows_see[:, cells] |= changed[:, inputs]
    see = np.zeros((batch, rows_see.shape[1], -(-width // layer.stride)), bool)
    for cells, inputs in columns:
        see[:, :, cells] |= rows_see[:, :, inputs]
    return see


@lru_cache
def tap_slices(size: int, kernel: int, stride: int) -> list[tuple[slice, slice]]:
    """For each tap of a kernel along an axis: the cells whose tap lies inside the input, and the inputs there."""
    before, _ = same_padding(size, kernel, stride)
    slices = []
    for offset in range(-before, kernel - before):
        first, last = max(-(offset // stride), 0), min((size - 1 - offset) // stride, -(-size // stride) - 1)
        inputs = slice(first * stride + offset, last * stride + offset + 1, stride)
        slices.append((slice(first, last + 1), inputs))
    return slices


def _rows(cells: Tensor) -> Tensor:
    """The cells (B, H, W, C) as rows (B H W, C) of the same memory."""
    return cells.view(-1, cells.shape[-1])


def _framed(maps: Tensor, layer: CellLayer) -> Tensor:
    """A layer's input (B, C, H, W) in a frame of zeros, as "same" padding has it: (B, H', W', C), contiguous."""
    before, after = same_padding(maps.shape[-1], layer.kernel, layer.stride)
    return F.pad(maps.permute(0, 2, 3, 1), (0, 0, before, after, before, after)).contiguous()
