"""Where and how precisely the keypoint networks compute."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

import torch
from torch import nn

ModuleType = TypeVar("ModuleType", bound=nn.Module)

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ISAS_WITHOUT_BFLOAT16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")
"""Values of oneDNN's variable ONEDNN_MAX_CPU_ISA that keep it from the processor's products in bfloat16."""
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
"""Settings of glibc's mallopt."""
LARGE_BLOCK = 32 * 1024**2
"""Bytes from which on glibc at the latest maps blocks from the system, where it finds its threshold by itself."""


def resolve_device(device: torch.device | str) -> torch.device:
    """The device that a name means; "auto" is a GPU when there is one.

    :raises ValueError: for a name that torch does not know, or a device that is not there
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device must be auto, cpu, cuda or another that torch knows, not {str(device)!r}") from error
    if not _is_there(resolved):
        raise ValueError(f"there is no device {device} on this machine that torch {torch.__version__} can use")
    return resolved


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """The type that a name means; "auto" is bfloat16 where the device multiplies matrices in it.

    On a CPU oneDNN does it, so that its variable ONEDNN_MAX_CPU_ISA, AVX2 for instance, switches bfloat16 off.

    :raises ValueError: for a name other than "auto", "float32" and "bfloat16"
    """
    if precision == "auto":
        return torch.bfloat16 if _computes_in_bfloat16(device) else torch.float32
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be 'auto', 'float32' or 'bfloat16', not {precision!r}")
    return PRECISIONS[precision]


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager:
    """Run convolutions and matrix products in the given precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16)


def place(module: ModuleType, device: torch.device) -> ModuleType:
    """Move a network to a device, its convolutions laid out channels last, which is twice as fast or more."""
    return module.to(device=device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def free_bytes(device: torch.device) -> int | None:
    """Memory of a GPU that this process may still take; None for other devices, which do not tell."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    # By number, where None stands for the one in use: torch takes no "cuda" here.
    share = torch.cuda.get_per_process_memory_fraction(device.index)
    return int(min(free, total * share - torch.cuda.memory_reserved(device)))


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within, glibc keeps freed memory: fresh pages for large blocks take a fifth of a training step on a CPU.

    Afterwards what was kept is given back, and large blocks, such as replay buffers, are mapped from the system again,
    which they leave as soon as they are freed.
    """
    libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    if libc is None or not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(MMAP_MAX, 0)
    libc.mallopt(TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        libc.mallopt(MMAP_MAX, 65536)
        libc.mallopt(MMAP_THRESHOLD, LARGE_BLOCK)
        libc.mallopt(TRIM_THRESHOLD, 2 * LARGE_BLOCK)
        libc.malloc_trim(0)


def _is_there(device: torch.device) -> bool:
    if device.type == "cuda":  # asked without a tensor, which would take memory on a GPU that another process trains on
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError):
        return False
    return True


def _computes_in_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # "lscpu" names: avx512_bf16, amx_bf16
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return _onednn_may_use_bfloat16() and any(getattr(torch.cpu, check, bool)() for check in checks)
    return False


def _onednn_may_use_bfloat16() -> bool:
    """Whether oneDNN multiplies in bfloat16 where the processor can; else it imitates it, up to 80 times slower."""
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return False
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA", "")
    # Without the variable, and with a name that oneDNN does not know, there is no limit.
    return limit.upper() not in ISAS_WITHOUT_BFLOAT16
