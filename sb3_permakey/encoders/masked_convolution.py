"""A convolution of masked maps of which few cells differ: each of these is multiplied once, and the products are read.

An output is a sum over the taps of its window: the mask times the kernel's product with the cell's feature. Of frames
of play a twentieth of the features differ, so that the products of all of them with all taps fit into the processor's
cache, and what remains are weighted sums of their rows, with nothing to add where the mask is zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from sb3_permakey.keypoints.distinct_cells import DistinctFeatures
from sb3_permakey.keypoints.layers import same_padding


@dataclass(frozen=True)
class MaskedMaps:
    """Maps (B, C, H, W) times masks (B, H, W), as a convolution of stride 1 reads them; images are sliced as rows."""

    features: Tensor
    """(U, C), those that differ."""
    products: Tensor
    """int32 (n,), what each output sums, output by output: a feature's number times k k, plus the tap's."""
    masks: Tensor
    """float32 (n,), by what it is multiplied."""
    begins: Tensor
    """int32 (B H W + 1,), where each output's begin, and where the last one's end."""
    size: int
    """H = W."""

    def __getitem__(self, images: slice) -> MaskedMaps:
        cells = self.size**2
        first, last, _ = images.indices(len(self.begins) // cells)
        begins = self.begins[first * cells : last * cells + 1]
        inside = slice(int(begins[0]), int(begins[-1]))
        return MaskedMaps(self.features, self.products[inside], self.masks[inside], begins - begins[0], self.size)


def masked_maps(cells: DistinctFeatures, places: np.ndarray, masks: np.ndarray, kernel: int) -> MaskedMaps:
    """Maps times masks, ready for `masked_convolution`.

    :param cells: features of the cells where the mask is not zero
    :param places: int64 (n,), these cells, as indices into the masks
    :param masks: float32 (B, H, H)
    :param kernel: k, side of the convolution's kernel
    """
    count, size, _ = masks.shape
    before, after = same_padding(size, kernel, 1)
    side = size + before + after
    inside = np.s_[:, before : before + size, before : before + size]
    image_and_row, column = np.divmod(places, size)
    image, row = np.divmod(image_and_row, size)
    # In a frame around the maps, where each cell is read by as many outputs, at the same steps from it.
    framed = (image * side + row + before) * side + column + before
    taps = np.arange(kernel) - before
    steps = (taps[:, None] * side + taps).ravel()
    reads = np.zeros(count * side**2, bool)
    reads[framed] = True
    counts = np.zeros((count, side, side), np.int32)
    for step in steps:
        first, last = max(step, 0), len(reads) + min(step, 0)
        counts.reshape(-1)[first - step : last - step] += reads[first:last]
    begins = np.zeros(masks.size + 1, np.int32)
    np.cumsum(counts[inside], out=begins[1:])
    # What outputs in the frame would sum comes behind all others.
    free = np.full(counts.shape, begins[-1])
    free[inside] = begins[:-1].reshape(masks.shape)
    products, weights = (np.empty(begins[-1] + kernel**2, kind) for kind in (np.int32, np.float32))
    numbers, of_cells = cells.numbers * np.int32(kernel**2), masks.ravel()[places]
    for tap, step in enumerate(steps):
        outputs = framed - step
        slots = free.reshape(-1)[outputs]
        products[slots], weights[slots] = numbers + np.int32(tap), of_cells
        free.reshape(-1)[outputs] = slots + 1
    inner = slice(begins[-1])
    found = [torch.from_numpy(part) for part in (products[inner], weights[inner], begins)]
    return MaskedMaps(cells.features, found[0], found[1], found[2], size)


def masked_convolution(maps: MaskedMaps, weight: Tensor, precision: torch.dtype = torch.float32) -> Tensor:
    """Convolution of stride 1 with "same" padding, as `same_conv2d` of features times masks within rounding.

    :param maps: B maps
    :param weight: (O, C, k, k)
    :param precision: of products and sums
    :return: (B, O, H, W), channels last
    """
    return _MaskedConvolution.apply(weight, maps, precision)


class _MaskedConvolution(torch.autograd.Function):
    """With the kernel's gradient; nothing else has one."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, maps: MaskedMaps, precision: torch.dtype) -> Tensor:
        ctx.maps, ctx.shape = maps, weight.shape
        outputs, channels, *_ = weight.shape
        taps = weight.permute(1, 2, 3, 0).reshape(channels, -1)
        products = maps.features.to(precision) @ taps.to(precision)
        sums = _sums(maps.products, maps.begins, products.view(-1, outputs), maps.masks)
        return sums.view(-1, maps.size, maps.size, outputs).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        from scipy.sparse import csr_matrix

        maps, (outputs, channels, kernel, _) = ctx.maps, ctx.shape
        rows = gradient.permute(0, 2, 3, 1).reshape(-1, outputs)
        # Which outputs each product is in, from which products are in each output.
        read = (maps.masks.numpy(), maps.products.numpy(), maps.begins.numpy())
        by_product = csr_matrix(read, shape=(len(rows), len(maps.features) * kernel**2)).tocsc()
        found = (by_product.indices, by_product.indptr, by_product.data)
        places, begins, masks = map(torch.from_numpy, found)
        of_products = _sums(places, begins, rows, masks).view(len(maps.features), -1)
        of_weight = maps.features.t() @ of_products.float()
        return of_weight.view(channels, kernel, kernel, outputs).permute(3, 0, 1, 2), None, None


def _sums(indices: Tensor, begins: Tensor, rows: Tensor, factors: Tensor) -> Tensor:
    """Sums of rows times factors, from one begin to the next, in the rows' precision."""
    weights = factors.to(rows.dtype)
    return F.embedding_bag(indices, rows, begins, mode="sum", per_sample_weights=weights, include_last_offset=True)
