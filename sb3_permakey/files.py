"""Writing files so that a kill or a full disk never leaves half of one."""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors.torch
from safetensors import safe_open
from torch import Tensor

LOCK = ".lock"
"""The file by which a run holds its folder; beside a single file, its name and this."""


class WriteError(OSError):
    """A file that could not be written; what was in its place is unchanged."""


class InUseError(WriteError):
    """A folder or file that another run is writing."""


def require_writable(*places: str | Path | None) -> None:
    """Raise WriteError unless files can be written to these places; asked before the work whose results they get.

    A trial file is made and removed where each would stand, or in the nearest folder that exists; None is passed over.
    """
    for place in places:
        if place is None:
            continue
        path = Path(place).absolute()
        try:
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            folder = next(parent for parent in path.parents if parent.exists())
            descriptor, trial = tempfile.mkstemp(dir=folder, prefix=f".{path.name}.", suffix=".part")
            os.close(descriptor)
            os.unlink(trial)
        except OSError as error:
            raise WriteError(f"could not write {place}: {error.strerror or error}") from error


@contextmanager
def locked_folder(folder: str | Path) -> Iterator[None]:
    """Hold a folder, made when missing, for one run; it is let go at the end, also by a run that is killed.

    :raises InUseError: when another run holds it; nothing in it is touched
    :raises WriteError: when it cannot be made or written
    """
    folder = Path(folder)
    with _locked(folder / LOCK, folder):
        yield


@contextmanager
def locked_file(path: str | Path) -> Iterator[None]:
    """Hold the place of a single file for one run, as `locked_folder` holds a folder."""
    path = Path(path)
    with _locked(path.with_name(f".{path.name}{LOCK}"), path):
        yield


@contextmanager
def _locked(lock: Path, place: Path) -> Iterator[None]:
    made = [folder for folder in lock.parents if not folder.exists()]
    try:
        file = _open_lock(lock)
    except OSError as error:
        raise WriteError(f"could not write {place}: {error.strerror or error}") from error
    if file is None:
        raise InUseError(f"another run is writing {place}: wait for its end, or give another place")
    try:
        yield
    finally:
        # Removed while it is held: whoever opened it meanwhile sees that it is no longer there.
        with suppress(OSError):
            lock.unlink()
        file.close()
        with suppress(OSError):
            # Folders in which nothing was written.
            for folder in made:
                folder.rmdir()


def _open_lock(lock: Path) -> BinaryIO | None:
    """The lock's file, held until it is closed; None when another holds it."""
    while True:
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = open(lock, "ab")  # noqa: SIM115 - closed by `_locked`
        except FileNotFoundError:
            continue  # The folder was removed by a run that ended.
        try:
            _hold(file)
            if os.fstat(file.fileno()).st_ino == os.stat(lock).st_ino:
                return file
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                file.close()
                return None
            warnings.warn(
                f"{lock.parent} cannot be locked ({error.strerror}): start one run in it at a time", stacklevel=4
            )
            return file
        file.close()


def _hold(file: BinaryIO) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write that stands beside its place, and is flushed to disk and moved there when all went well.

    :param path: file to write; its folder is made when missing
    :raises WriteError: when the disk does not take it; nothing is left beside the place, an older file is unchanged
    """
    with atomic_path(path) as part, open(part, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """As `atomic_file`, for what writes to a path alone: that of an empty file with the same suffix."""
    path = Path(path)
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=f".part{path.suffix}")
        os.close(descriptor)
        yield Path(part)
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


def read_json(path: str | Path) -> Any:
    """The content of a JSON file.

    :raises ValueError: when it is broken
    """
    try:
        return json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not a whole JSON file ({error})") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
