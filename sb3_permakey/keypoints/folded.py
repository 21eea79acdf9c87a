"""The frozen keypoint networks in use: BatchNorm folded away, only the layers that are needed, patches as rows."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sb3_permakey.keypoints.layers import ENCODER, IMAGE_SIZE, ConvBlock, gaussian_windows, soft_argmax, window_means
from sb3_permakey.keypoints.lspn import ACTIVATION_FLOOR, LSPN, normalise_maps, stack_error_maps
from sb3_permakey.keypoints.model import Keypoints
from sb3_permakey.keypoints.peaks import error_map_peaks
from sb3_permakey.keypoints.permakey import PermaKey
from sb3_permakey.keypoints.streaming import PatchMemory, WindowHasher, colour_codes, patch_windows
from sb3_permakey.keypoints.transporter import Transporter
from sb3_permakey.keypoints.trunk import FoldedConvolutions, fold_block, fold_norm

ROWS_AT_ONCE = 4096
"""Patches whose neighbours are laid out at the same time; a patch takes 2 to 8 KB."""


def to_images(frames: np.ndarray, device: torch.device) -> Tensor:
    """Frames as the networks want them: uint8 (B, 84, 84, C) -> float32 (B, C, 84, 84) in [0, 1], channels last."""
    tensor = torch.from_numpy(np.require(frames, requirements="W")).to(device)
    return tensor.permute(0, 3, 1, 2).float().div_(255)


def fold_blocks(blocks: Iterable[nn.Module]) -> FoldedConvolutions:
    """The convolutions that equal a stack of ConvBlocks."""
    return FoldedConvolutions((*fold_block(block), block.stride) for block in blocks if isinstance(block, ConvBlock))


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

    def patch_rows(self, features: Tensor) -> Tensor:
        """Patches of a map (B, C, H, W), framed by zeros: (B, h + 2, w + 2, p p C)."""
        cells = features.permute(0, 2, 3, 1)
        size = self.patch_size
        batch, height, width, channels = cells.shape
        rows, columns = -(-height // size), -(-width // size)
        if (rows * size, columns * size) != (height, width):
            cells = F.pad(cells, (0, 0, 0, columns * size - width, 0, rows * size - height))
        grid = cells.reshape(batch, rows, size, columns, size, channels).transpose(2, 3)
        framed = cells.new_zeros(batch, rows + 2, columns + 2, size * size * channels)
        framed[:, 1:-1, 1:-1].unflatten(-1, (size, size, channels)).copy_(grid)
        return framed

    def relative_errors(self, patches: Tensor, places: Tensor) -> Tensor:
        """Error of each patch relative to its mean activation, as `lspn.error_map` has it.

        :param patches: (B, h + 2, w + 2, p p C) of `patch_rows`
        :param places: (n,), indices into the B h w patches, int64
        :return: (n,), float32
        """
        height, width = patches.shape[1:3]
        step = torch.tensor([-1, 0, 1], device=patches.device)
        around = (step.unsqueeze(1) * width + step).flatten()
        around = torch.cat([around[:4], around[5:]])
        inner = (height - 2) * (width - 2)
        image, place = places // inner, places % inner
        centers = image * height * width + (place // (width - 2) + 1) * width + place % (width - 2) + 1
        rows = patches.flatten(0, 2)
        return torch.cat([self._errors(rows, part, around) for part in centers.split(ROWS_AT_ONCE)])

    def _errors(self, rows: Tensor, centers: Tensor, around: Tensor) -> Tensor:
        neighbours = rows[(centers.unsqueeze(1) + around).flatten()].view(len(centers), -1)
        hidden = F.linear(neighbours, self.first_weight, self.first_bias).relu_()
        hidden = F.linear(hidden, self.second_weight, self.second_bias).relu_()
        predicted, seen = F.linear(hidden, self.last_weight, self.last_bias).float(), rows[centers].float()
        return (predicted - seen).square().mean(dim=1) / (seen.mean(dim=1) + ACTIVATION_FLOOR)


class FoldedPermaKey(nn.Module):
    """A frozen PermaKey, for inference mode.

    In bfloat16 the LSPN alone computes, which is nearly all of the arithmetic. Keypoints are several times as sensitive
    to rounding in the trunk, whose features the errors are differences of, and the PointNet's softmax is steep.

    :param model: the trained model, which is left as it is
    :param precision: of the LSPN
    :param streaming: remember the errors of patches
    """

    def __init__(self, model: PermaKey, precision: torch.dtype, *, streaming: bool) -> None:
        super().__init__()
        self.config, self.cell_sizes, self.feature_size = model.config, model.cell_sizes, model.feature_size
        self.trunk = fold_blocks(model.feature_blocks())
        self.lspns = nn.ModuleList(FoldedLSPN(lspn) for lspn in model.lspns if isinstance(lspn, LSPN)).to(precision)
        self.pointnet = fold_blocks(model.pointnet.trunk.blocks)
        self.to_keypoints = copy.deepcopy(model.pointnet.to_keypoints)
        self.precision = precision
        self.memories: list[tuple[WindowHasher, PatchMemory]] = []
        if streaming:
            for layer in self.config.layers:
                windows = patch_windows(ENCODER, layer, self.config.patch_size)
                self.memories.append((WindowHasher(windows), PatchMemory()))

    def keypoints(self, frames: np.ndarray) -> Keypoints:
        """The PointNet's keypoints of frames uint8 (B, 84, 84, C)."""
        maps = self._maps(frames)
        layer_maps = self._error_maps(range(len(self.lspns)), frames, maps)
        stacked = self._stack([layer_map.pow(self.config.map_power) for layer_map in layer_maps])
        deepest = self.pointnet.maps(stacked.contiguous(memory_format=torch.channels_last))[-1]
        centers = soft_argmax(self.to_keypoints(deepest), self.config.softmax)
        return Keypoints(centers, self._features_at(centers, maps))

    def peaks(self, frames: np.ndarray, num_keypoints: int, min_distance_px: float) -> Keypoints:
        """Peaks of the first layer's error map, their features as the PointNet's keypoints have them."""
        maps = self._maps(frames)
        (error_map,) = self._error_maps((0,), frames, maps)
        centers, heights = error_map_peaks(error_map, self.cell_sizes[0], num_keypoints, min_distance_px)
        return Keypoints(centers, self._features_at(centers, maps), heights)

    def error_maps(self, frames: np.ndarray) -> Tensor:
        """Error maps of frames uint8 (B, 84, 84, C), at their size: (B, M, 84, 84) in [0, 1]."""
        return self._stack(self.layer_error_maps(frames))

    def layer_error_maps(self, frames: np.ndarray) -> list[Tensor]:
        """Each layer's error maps of frames uint8 (B, 84, 84, C), one value a patch: (B, h, w) in [0, 1]."""
        return self._error_maps(range(len(self.lspns)), frames, self._maps(frames))

    def _maps(self, frames: np.ndarray) -> list[Tensor]:
        return self.trunk.maps(to_images(frames, self.to_keypoints.weight.device))

    def _features_at(self, centers: Tensor, maps: list[Tensor]) -> Tensor:
        return window_means(maps[-1], gaussian_windows(centers, self.feature_size, self.config.window_std))

    def _stack(self, layer_maps: list[Tensor]) -> Tensor:
        return stack_error_maps(layer_maps, self.cell_sizes, IMAGE_SIZE)

    def _error_maps(self, indices: Iterable[int], frames: np.ndarray, maps: list[Tensor]) -> list[Tensor]:
        """Error maps (B, h, w) in [0, 1] of some of the LSPN's layers."""
        codes = colour_codes(frames) if self.memories else None
        layer_maps = []
        for index in indices:
            features = maps[self.config.layers[index]]
            side = -(-features.shape[-1] // self.config.patch_size)
            if codes is None:
                errors = self._relative_errors(index, features, torch.arange(len(frames) * side**2))
            else:
                errors = self._remembered_errors(index, features, codes)
            layer_maps.append(normalise_maps(errors.view(-1, side, side)))
        return layer_maps

    def _remembered_errors(self, index: int, features: Tensor, codes: np.ndarray) -> Tensor:
        hasher, memory = self.memories[index]

        def compute(places: np.ndarray) -> np.ndarray:
            return self._relative_errors(index, features, torch.from_numpy(places)).cpu().numpy()

        return torch.from_numpy(memory.recall(hasher(codes).ravel(), compute)).to(features.device)

    def _relative_errors(self, index: int, features: Tensor, places: Tensor) -> Tensor:
        lspn = self.lspns[index]
        assert isinstance(lspn, FoldedLSPN)
        return lspn.relative_errors(lspn.patch_rows(features.to(self.precision)), places.to(features.device))


class FoldedTransporter(nn.Module):
    """A frozen Transporter, for inference mode.

    :param model: the trained model, which is left as it is
    :param precision: of all layers but the last
    """

    def __init__(self, model: Transporter, precision: torch.dtype) -> None:
        super().__init__()
        self.config, self.feature_size = model.config, model.feature_size
        self.features, self.pointnet = (
            fold_blocks(trunk.blocks).to(precision) for trunk in (model.features, model.pointnet)
        )
        self.to_keypoints = copy.deepcopy(model.to_keypoints)
        self.precision = precision

    def keypoints(self, frames: np.ndarray) -> Keypoints:
        """Keypoints of frames uint8 (B, 84, 84, C)."""
        images = to_images(frames, self.to_keypoints.weight.device).to(self.precision)
        deepest = self.pointnet.maps(images)[-1].float()
        centers = soft_argmax(self.to_keypoints(deepest), self.config.softmax)
        windows = gaussian_windows(centers, self.feature_size, self.config.window_std)
        return Keypoints(centers, window_means(self.features.maps(images)[-1], windows))
