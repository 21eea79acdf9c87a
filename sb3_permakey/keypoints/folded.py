"""The frozen PermaKey in use: BatchNorm folded away, only the layers that are needed, patches as rows."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sb3_permakey.keypoints.chain import ErrorMapChain
from sb3_permakey.keypoints.layers import ENCODER, soft_argmax, to_images
from sb3_permakey.keypoints.lspn import ACTIVATION_FLOOR, LSPN
from sb3_permakey.keypoints.model import Frames, FrozenModel
from sb3_permakey.keypoints.streaming import PatchMemory, WindowHasher, colour_codes, patch_windows
from sb3_permakey.keypoints.streaming_trunk import StreamingTrunk
from sb3_permakey.keypoints.trunk import fold_blocks, fold_norm

if TYPE_CHECKING:
    from sb3_permakey.keypoints.permakey import PermaKey, PermaKeyConfig

PATCHES_AT_ONCE = 4096
"""Patches whose neighbours are laid out at the same time; a patch takes 2 to 9 KB."""
AROUND = np.array([(-1, -1, -1, 0, 0, 1, 1, 1, 0), (-1, 0, 1, -1, 1, -1, 0, 1, 0)])[..., None]
"""Rows and columns, (2, 9, 1), from a patch to its eight neighbours and itself."""


class FoldedLSPN(nn.Module):
    """Errors of an LSPN's predictions, for all patches of a map or for some of them.

    A patch is a row of p*p*C values and the first layer a product with the rows of its eight neighbours.

    :param lspn: the trained module
    """

    first_weight: Tensor
    first_bias: Tensor
    second_weight: Tensor
    second_bias: Tensor
    last_weight: Tensor
    last_bias: Tensor

    def __init__(self, lspn: LSPN) -> None:
        super().__init__()
        self.patch_size = lspn.patch_size
        first_norm, _, second, second_norm, _, last = lspn.head
        assert isinstance(first_norm, nn.BatchNorm1d)
        assert isinstance(second, nn.Linear)
        assert isinstance(second_norm, nn.BatchNorm1d)
        assert isinstance(last, nn.Linear)
        kernel = lspn.neighbours.weight.detach().float()
        patch_values = kernel.shape[1]
        # Rows hold a patch's cells one after another, the trained layers its channels.
        order = torch.arange(patch_values, device=kernel.device).view(-1, self.patch_size**2).t().flatten()
        taps = [tap for tap in range(9) if tap != 4]
        first = kernel.flatten(2)[:, order][..., taps].transpose(1, 2).flatten(1)
        for name, linear, norm in (("first", first, first_norm), ("second", second.weight, second_norm)):
            scale, shift = fold_norm(norm)
            self.register_buffer(f"{name}_weight", linear.detach().float() * scale.unsqueeze(1))
            self.register_buffer(f"{name}_bias", shift)
        self.register_buffer("last_weight", last.weight.detach().float()[order])
        self.register_buffer("last_bias", last.bias.detach().float()[order])

    def relative_errors(self, features: Tensor, places: np.ndarray | None = None) -> Tensor:
        """Error of each patch relative to its mean activation, as `lspn.error_map` has it.

        :param features: (B, C, H, W), channels last
        :param places: int64 (n,), indices into the B h w patches; None: all of them
        :return: (n,), float32
        """
        cells = features.permute(0, 2, 3, 1)
        size = self.patch_size
        batch, height, width, channels = cells.shape
        grid = Grid(-(-height // size), -(-width // size), size)
        if (grid.rows * size, grid.columns * size) != (height, width):
            cells = F.pad(cells, (0, 0, 0, grid.columns * size - width, 0, grid.rows * size - height))
        strips = cells.reshape(batch * grid.rows * size * grid.columns, size * channels)
        chosen = all_strips(batch, grid, strips.device) if places is None else some_strips(places, grid, strips.device)
        return torch.cat([self._errors(strips, *of_some) for of_some in chosen])

    def _errors(self, strips: Tensor, wanted: Tensor, outside: Tensor) -> Tensor:
        """Errors of the patches that are made of the strips that `some_strips` wants."""
        gathered = strips.index_select(0, wanted)
        if len(outside):
            gathered[outside] = 0
        patch_values = len(self.last_bias)
        values = gathered.view(-1, 9 * patch_values)
        neighbours, seen = values[:, :-patch_values], values[:, -patch_values:].float()
        hidden = F.linear(neighbours, self.first_weight, self.first_bias).relu_()
        hidden = F.linear(hidden, self.second_weight, self.second_bias).relu_()
        predicted = F.linear(hidden, self.last_weight, self.last_bias).float()
        return (predicted - seen).square().mean(dim=1) / (seen.mean(dim=1) + ACTIVATION_FLOOR)


class Grid(NamedTuple):
    """The patches of an image."""

    rows: int
    columns: int
    size: int
    """Side of a patch in cells."""


def some_strips(places: np.ndarray, grid: Grid, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """The strips, a patch wide and a cell high, of which patches and their neighbours are made, part by part.

    :param places: int64 (n,), indices into the patches of images
    :param grid: an image's patches
    :param device: where the indices are wanted
    :return: for up to `PATCHES_AT_ONCE` patches each: indices of all strips of all patches, of a patch those of its
        eight neighbours from the upper left on, then its own; and which of them, counted through, lie outside the image
    """
    chosen = []
    for part in np.split(places, range(PATCHES_AT_ONCE, len(places), PATCHES_AT_ONCE)):
        image_and_row, column = np.divmod(part, grid.columns)
        row, columns = image_and_row % grid.rows + AROUND[0], column + AROUND[1]
        inside = (row >= 0) & (row < grid.rows) & (columns >= 0) & (columns < grid.columns)
        first = ((image_and_row + AROUND[0]) * grid.size * grid.columns + columns) * inside
        strips = first.T[..., None] + grid.columns * np.arange(grid.size)
        outside = np.flatnonzero(np.repeat(~inside.T, grid.size))
        chosen.append((torch.from_numpy(strips.ravel()).to(device), torch.from_numpy(outside).to(device)))
    return chosen


def all_strips(batch: int, grid: Grid, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """`some_strips` of all patches of a batch of images."""
    # On a GPU captured calls read them, so that they have to stay: 130 KB a frame, for each number of frames.
    return (_few_strips if device.type == "cpu" else _kept_strips)(batch, grid, device)


def _strips(batch: int, grid: Grid, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    return some_strips(np.arange(batch * grid.rows * grid.columns), grid, device)


_few_strips, _kept_strips = lru_cache(maxsize=4)(_strips), cache(_strips)


class FoldedPermaKey(ErrorMapChain[Frames], FrozenModel):
    """A frozen PermaKey, for inference mode.

    In bfloat16 the LSPN alone computes, which is nearly all of the arithmetic. Keypoints are several times as sensitive
    to rounding in the trunk, whose features the errors are differences of, and the PointNet's softmax is steep.

    :param model: the trained model, which is left as it is
    :param precision: of the LSPN
    :param streaming: compute what has changed in the trunk's maps, remember the errors of patches
    """

    config: PermaKeyConfig

    def __init__(self, model: PermaKey, precision: torch.dtype, *, streaming: bool) -> None:
        super().__init__()
        self.config, self.cell_sizes = model.config, model.cell_sizes
        self.trunk = fold_blocks(model.feature_blocks())
        self.lspns = nn.ModuleList(FoldedLSPN(lspn) for lspn in model.lspns if isinstance(lspn, LSPN)).to(precision)
        self.pointnet = fold_blocks(model.pointnet.trunk.blocks)
        self.to_keypoints = copy.deepcopy(model.pointnet.to_keypoints)
        self.precision = precision
        self.memories: list[tuple[WindowHasher, PatchMemory]] = []
        self.streaming_trunk = StreamingTrunk(self.trunk) if streaming else None
        if streaming:
            for layer in self.config.layers:
                windows = patch_windows(ENCODER, layer, self.config.patch_size)
                self.memories.append((WindowHasher(windows), PatchMemory()))

    def feature_maps(self, frames: Frames) -> list[Tensor]:
        """Maps of frames uint8 (B, 84, 84, C); valid until the next call."""
        if self.streaming_trunk is not None:
            assert isinstance(frames, np.ndarray)
            return self.streaming_trunk.maps(frames)
        return self.trunk.maps(to_images(frames, self.to_keypoints.weight.device))

    def centers(self, maps: Tensor) -> Tensor:
        """The folded PointNet."""
        deepest = self.pointnet.maps(maps.contiguous(memory_format=torch.channels_last))[-1]
        return soft_argmax(self.to_keypoints(deepest), self.config.softmax)

    def relative_errors(self, indices: Iterable[int], frames: Frames, maps: list[Tensor]) -> list[Tensor]:
        """Errors of patches, those that are remembered looked up."""
        codes = colour_codes(frames) if self.memories and isinstance(frames, np.ndarray) else None
        layers = []
        for index in indices:
            features = maps[self.config.layers[index]]
            side = -(-features.shape[-1] // self.config.patch_size)
            if codes is None:
                errors = self._relative_errors(index, features)
            else:
                errors = self._remembered_errors(index, features, codes)
            layers.append(errors.view(-1, side, side))
        return layers

    def _remembered_errors(self, index: int, features: Tensor, codes: np.ndarray) -> Tensor:
        hasher, memory = self.memories[index]

        def compute(places: np.ndarray) -> np.ndarray:
            return self._relative_errors(index, features, places).cpu().numpy()

        return torch.from_numpy(memory.recall(hasher(codes).ravel(), compute)).to(features.device)

    def _relative_errors(self, index: int, features: Tensor, places: np.ndarray | None = None) -> Tensor:
        lspn = self.lspns[index]
        assert isinstance(lspn, FoldedLSPN)
        return lspn.relative_errors(features.to(self.precision), places)
