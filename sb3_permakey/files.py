"""Writing files so that a kill or a full disk never leaves half of one."""

from __future__ import annotations

import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np


def write_atomically(path: str | Path, content: bytes) -> Path:
    """Write beside the place, flush to disk, then move there; an older file survives any failure.

    :param path: file to write; its folder is made when missing
    :param content: the whole content
    :return: the path
    :raises OSError: when the disk does not take it; nothing is left beside the place
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(part, 0o666 & ~_umask())
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise
    return path


def write_array(path: str | Path, array: np.ndarray) -> Path:
    """Write a .npy file atomically."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    return write_atomically(path, content.getvalue())


def write_json(path: str | Path, content: Any) -> Path:
    """Write indented JSON atomically."""
    return write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
