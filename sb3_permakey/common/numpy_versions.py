"""Agents that were saved under a newer numpy than the one that loads them."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


class NumpyVersionError(ValueError):
    """A saved agent whose pickles this numpy cannot read."""


@contextmanager
def newer_numpy_named(path: Any) -> Iterator[None]:
    """Within, a saved agent is loaded; where that fails and a newer numpy saved it, say so.

    Pickles of numpy 2, such as SB3's zips hold of spaces and random states, name modules that numpy 1 has not; numpy 2
    reads those of numpy 1.

    :param path: the zip file, or an open file
    :raises NumpyVersionError: in place of any error, when a newer major version of numpy saved the file
    """
    try:
        yield
    except Exception as error:
        saved = _numpy_of(path)
        if saved is None or int(saved.split(".")[0]) <= int(np.__version__.split(".")[0]):
            raise
        raise NumpyVersionError(
            f"{path} was saved under numpy {saved}, which numpy {np.__version__} cannot read: load it where numpy is "
            'as new (pip install "numpy>=2"; OCAtari, of the extra scores, needs numpy 1 and with it an environment of '
            "its own), or save the agent under numpy 1"
        ) from error


def _numpy_of(path: Any) -> str | None:
    """The version that SB3 noted in the zip; None where there is no such note."""
    try:
        # SB3 takes paths without their ending, too.
        file = path if hasattr(path, "read") else next(p for p in (Path(path), Path(f"{path}.zip")) if p.is_file())
        with zipfile.ZipFile(file) as archive:
            note = archive.read("system_info.txt").decode()
    except (OSError, KeyError, StopIteration, zipfile.BadZipFile):
        return None
    found = re.search(r"Numpy: (\d[\w.]*)", note)
    return found and found[1]
