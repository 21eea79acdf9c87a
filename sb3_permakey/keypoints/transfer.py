"""Many arrays to a device, or back, in one copy: on a GPU each copy costs more than what a small batch weighs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

ALIGNMENT = 16
"""Bytes; each array begins at a multiple of them, so that any type may lie there."""


def to_device(arrays: Mapping[str, np.ndarray], device: torch.device) -> dict[str, torch.Tensor]:
    """Arrays as tensors on a device; on the CPU without a copy.

    :param arrays: by name; float64 becomes float32, since Apple's GPUs take no float64
    :param device: where they go; to a GPU by pinned memory, for which the host does not wait
    """
    singles = {
        name: array.astype(np.float32) if array.dtype == np.float64 else np.require(array, requirements=["C", "W"])
        for name, array in arrays.items()
    }
    if device.type == "cpu":
        return {name: torch.from_numpy(array) for name, array in singles.items()}
    return unpacked(packed(singles, device.type == "cuda").to(device, non_blocking=True), singles)


def packed(arrays: Mapping[str, np.ndarray], pinned: bool = False) -> torch.Tensor:
    """Contiguous arrays as bytes, one after another.

    :param arrays: by name
    :param pinned: whether in memory that a GPU reads by itself
    :return: uint8 (bytes), on the CPU
    """
    begins, total = _places(arrays)
    memory = torch.empty(total, dtype=torch.uint8, pin_memory=pinned)
    for begin, array in zip(begins, arrays.values(), strict=True):
        memory.numpy()[begin : begin + array.nbytes] = array.reshape(-1).view(np.uint8)
    return memory


def unpacked(memory: torch.Tensor, arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """What was packed, as views.

    :param memory: of `packed`, on any device
    :param arrays: that were packed, or others of the same shapes and types
    """
    return {
        name: memory[begin : begin + array.nbytes]
        .view(torch.from_numpy(np.empty(0, array.dtype)).dtype)
        .view(array.shape)
        for begin, (name, array) in zip(_places(arrays)[0], arrays.items(), strict=True)
    }


def to_host(tensors: Sequence[torch.Tensor]) -> list[np.ndarray]:
    """Tensors of one device as arrays; on the CPU without a copy.

    :param tensors: of any shapes and types
    """
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return [tensor.numpy() for tensor in tensors]
    return split(torch.cat([tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in tensors]).cpu(), tensors)


def split(memory: torch.Tensor, tensors: Sequence[torch.Tensor]) -> list[np.ndarray]:
    """Arrays of the bytes of some tensors, one after another.

    :param memory: uint8 (bytes), on the CPU
    :param tensors: of these shapes and types
    """
    ends = np.cumsum([tensor.nbytes for tensor in tensors])[:-1]
    return [
        # A copy, since a type may not lie anywhere.
        part.copy().view(torch.empty(0, dtype=tensor.dtype).numpy().dtype).reshape(tuple(tensor.shape))
        for part, tensor in zip(np.split(memory.numpy(), ends), tensors, strict=True)
    ]


def _places(arrays: Mapping[str, np.ndarray]) -> tuple[list[int], int]:
    """Where each array begins, and where all end, in bytes."""
    places = [0]
    for array in arrays.values():
        places.append(places[-1] + -(-array.nbytes // ALIGNMENT) * ALIGNMENT)
    return places[:-1], places[-1]
