"""Writing files so that a kill or a full disk never leaves half of one."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors.torch
from safetensors import safe_open
from torch import Tensor


class WriteError(OSError):
    """A file that could not be written; what was in its place is unchanged."""


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write that stands beside its place, and is flushed to disk and moved there when all went well.

    :param path: file to write; its folder is made when missing
    :raises WriteError: when the disk does not take it; nothing is left beside the place, an older file is unchanged
    """
    path = Path(path)
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(part, 0o666 & ~_umask())
        os.replace(part, path)
    except BaseException as error:
        if part is not None:
            os.unlink(part)
        if isinstance(error, OSError):
            raise WriteError(f"could not write {path}: {error.strerror or error}") from error
        raise


def write_atomically(path: str | Path, content: bytes) -> Path:
    """Write a whole file, as `atomic_file` does; the path."""
    with atomic_file(path) as file:
        file.write(content)
    return Path(path)


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> Path:
    """Write a safetensors file atomically; the path."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return write_atomically(path, safetensors.torch.save(contiguous, metadata))


def read_tensors(path: str | Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a safetensors file.

    :raises SafetensorError: when the file is broken
    """
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping


@contextmanager
def atomic_array(path: str | Path, dtype: type[np.generic], shape: tuple[int, ...]) -> Iterator[ArrayAppender]:
    """A .npy file to write part by part along its first axis, as `atomic_file` does.

    :param path: file to write
    :param dtype: of the array
    :param shape: of the whole array
    """
    with atomic_file(path) as file:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        yield ArrayAppender(file, dtype)


class ArrayAppender:
    """Appends parts to the array of an open .npy file.

    :param file: the file, its header written
    :param dtype: of the array
    """

    def __init__(self, file: BinaryIO, dtype: type[np.generic]) -> None:
        self.file, self.dtype = file, dtype

    def append(self, part: np.ndarray) -> None:
        """Write the next rows."""
        self.file.write(np.ascontiguousarray(part, dtype=self.dtype).tobytes())


def write_json(path: str | Path, content: Any) -> Path:
    """Write indented JSON atomically."""
    return write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
