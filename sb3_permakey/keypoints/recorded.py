"""Keypoints in files: a row for each keypoint of each frame, as .parquet, .npz or .csv.

The columns are the same in each format, and their order too:

- episode, frame: numbers of the episode, and of the frame in the whole source, from 0
- keypoint, identity: its place in the readout's own order (of peaks: by height, the highest first), and the number
  under which it is followed through an episode; the same where the readout's order does not change
- y, x: in [-1, 1], the centres of the 84x84 frame's first and last pixels
- y_px, x_px: in the source's pixels; 0 is the centre of the first
- confidence: where the readout has one, in [0, 1]
- feature_0, feature_1...: where they were asked for

A description goes along, as JSON: the format's version, the source and its height and width, the model and the readout.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from sb3_permakey.extras import missing_package
from sb3_permakey.files import atomic_file
from sb3_permakey.keypoints.layers import IMAGE_SIZE

FORMATS = (".parquet", ".npz", ".csv")
VERSION = 1
DESCRIPTION = "sb3_permakey"
"""Name of the description in a file; in a .csv its first line begins with "# " and this."""
NUMBERS = ("episode", "frame", "keypoint", "identity")
PLACES = ("y", "x", "y_px", "x_px")
CONFIDENCE, FEATURE = "confidence", "feature_"


class KeypointFileError(ValueError):
    """A file of keypoints that is missing, broken or of another version."""


@dataclass(frozen=True)
class RecordedKeypoints:
    """K keypoints on each of N frames; the k-th is the same identity from frame to frame of an episode."""

    frames: np.ndarray
    """(N,) int64, the frame's number in the source."""
    episodes: np.ndarray
    """(N,) int64."""
    places: np.ndarray
    """(N, K) int64, each one's place in the readout's own order."""
    centers: np.ndarray
    """(N, K, 2) float32, (y, x) in [-1, 1]."""
    size: tuple[int, int]
    """Height and width of the source, in pixels."""
    confidence: np.ndarray | None = None
    """(N, K) float32 in [0, 1]."""
    features: np.ndarray | None = None
    """(N, K, C) float32."""
    description: Mapping[str, Any] | None = None
    """What else the file says: source, checkpoint, readout."""

    @property
    def centers_px(self) -> np.ndarray:
        """(N, K, 2) float32, (row, column) in the source's pixels; 0 is the centre of the first."""
        return source_pixels(self.centers, self.size)


def source_pixels(centers: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Places in a source whose whole frames were resized to 84x84, whatever their aspect.

    A pixel of the 84x84 frame is the mean of an area of H/84 by W/84 pixels, and its centre that area's centre.

    :param centers: (..., 2), (y, x) in [-1, 1]
    :param size: height and width of the source, in pixels
    :return: (..., 2) float32, (row, column); 0 is the centre of the first pixel
    """
    pixels = (np.asarray(centers, np.float64) + 1) * (IMAGE_SIZE - 1) / 2
    return ((pixels + 0.5) * np.array(size) / IMAGE_SIZE - 0.5).astype(np.float32)


def write_keypoints(path: str | Path, keypoints: RecordedKeypoints) -> Path:
    """Write keypoints atomically, in the format that the path's ending names.

    :param path: file to write
    :param keypoints: what to write
    :raises ImportError: for .parquet without pyarrow
    :raises ValueError: for another ending
    :raises WriteError: when the disk does not take it
    """
    path = Path(path)
    require_format(path)
    columns = _columns(keypoints)
    height, width = keypoints.size
    described = {"version": VERSION, "rows": keypoints.places.size, "height": height, "width": width}
    description = json.dumps({**described, **(keypoints.description or {})})
    with atomic_file(path) as file:
        if path.suffix.lower() == ".csv":
            _write_csv(file, columns, description)
        elif path.suffix.lower() == ".npz":
            np.savez_compressed(file, **columns, **{DESCRIPTION: np.array(description)})
        else:
            pyarrow = import_pyarrow()
            table = pyarrow.table(columns).replace_schema_metadata({DESCRIPTION: description})
            pyarrow.parquet.write_table(table, file)
    return path


def read_keypoints(path: str | Path) -> RecordedKeypoints:
    """Keypoints of a file that `sb3-permakey detect` wrote.

    :param path: a .parquet, .npz or .csv file
    :raises ImportError: for .parquet without pyarrow
    :raises KeypointFileError: when it is missing, broken, of another version, or holds something else
    """
    path = Path(path)
    require_format(path)
    if not path.is_file():
        raise KeypointFileError(f"no file of keypoints at {path}")
    read = {".csv": _read_csv, ".npz": _read_npz, ".parquet": _read_parquet}[path.suffix.lower()]
    try:
        text, columns = read(path)
        description = json.loads(text)
        version = description.pop("version")
        if version != VERSION:
            raise KeypointFileError(f"{path} has version {version} of files of keypoints, this release reads {VERSION}")
        return _keypoints(columns, description)
    except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, KeypointFileError):
            raise
        raise KeypointFileError(f"{path} is not a whole file of keypoints ({_reason(error)})") from error


def require_format(path: Path) -> None:
    """Raise ValueError unless the path's ending names a format, ImportError where pyarrow is missing for it."""
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"keypoints are files {', '.join(FORMATS)}, not {path}")
    if path.suffix.lower() == ".parquet":
        import_pyarrow()


def import_pyarrow() -> ModuleType:
    """The package that reads and writes .parquet files.

    :raises ImportError: when it is not installed
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise missing_package(".parquet files need pyarrow (.npz and .csv need nothing)", "parquet") from error
    return pyarrow


def _columns(keypoints: RecordedKeypoints) -> dict[str, np.ndarray]:
    """Columns of all rows, frame after frame, in the readout's own order within each."""
    count, per_frame = keypoints.places.shape
    order = np.argsort(keypoints.places, axis=1)

    def rows(values: np.ndarray) -> np.ndarray:
        return np.take_along_axis(values, order, axis=1).reshape(-1)

    numbers = (np.repeat(keypoints.episodes, per_frame), np.repeat(keypoints.frames, per_frame))
    columns = dict(zip(NUMBERS, (*numbers, np.tile(np.arange(per_frame), count), order.reshape(-1)), strict=True))
    places = np.concatenate([keypoints.centers, keypoints.centers_px], axis=-1)
    columns |= {name: rows(places[..., index]) for index, name in enumerate(PLACES)}
    if keypoints.confidence is not None:
        columns[CONFIDENCE] = rows(keypoints.confidence)
    if keypoints.features is not None:
        for index in range(keypoints.features.shape[-1]):
            columns[f"{FEATURE}{index}"] = rows(keypoints.features[..., index])
    return columns


def _keypoints(columns: Mapping[str, np.ndarray], description: dict[str, Any]) -> RecordedKeypoints:
    """Keypoints of columns, checked."""
    rows, size = description.pop("rows"), (int(description.pop("height")), int(description.pop("width")))
    if len(columns["frame"]) != rows:
        raise ValueError(f"it has {len(columns['frame'])} of {rows} rows")
    numbers = {name: np.asarray(columns[name]).astype(np.int64) for name in NUMBERS}
    frames, first = np.unique(numbers["frame"], return_index=True)
    per_frame = len(numbers["frame"]) // max(len(frames), 1)
    order = np.lexsort((numbers["identity"], numbers["frame"]))
    shape = (len(frames), per_frame)
    expected = np.broadcast_to(np.arange(per_frame), shape)
    if len(order) != len(frames) * per_frame:
        raise ValueError("its frames have different numbers of keypoints")
    for name in ("identity", "keypoint"):
        found = numbers[name][order].reshape(shape)
        if not np.array_equal(found if name == "identity" else np.sort(found, axis=1), expected):
            raise ValueError(f"column {name} does not number the keypoints of each frame from 0")

    def values(name: str) -> np.ndarray:
        return np.asarray(columns[name]).astype(np.float32)[order].reshape(shape)

    centers = np.stack([values("y"), values("x")], axis=-1)
    if not (np.abs(centers) <= 1).all():
        raise ValueError("y and x are not all from -1 to 1")
    features = [values(f"{FEATURE}{index}") for index in range(sum(name.startswith(FEATURE) for name in columns))]
    return RecordedKeypoints(
        frames,
        numbers["episode"][first],
        numbers["keypoint"][order].reshape(shape),
        centers,
        size,
        values(CONFIDENCE) if CONFIDENCE in columns else None,
        np.stack(features, axis=-1) if features else None,
        description,
    )


def _write_csv(file: BinaryIO, columns: Mapping[str, np.ndarray], description: str) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    text.write(f"# {DESCRIPTION} {description}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    # As a string a float32 has as many digits as tell it from all others.
    writer.writerows(zip(*(column.astype(str) for column in columns.values()), strict=True))
    text.flush()
    text.detach()


def _read_csv(path: Path) -> tuple[str, Mapping[str, np.ndarray]]:
    begins = f"# {DESCRIPTION} "
    with open(path, encoding="utf-8", newline="") as file:
        first = file.readline()
        if not first.startswith(begins):
            raise ValueError(f"its first line does not begin with {begins.strip()!r}")
        names = file.readline().strip().split(",")
        rows = np.loadtxt(file, delimiter=",", dtype=np.float64, ndmin=2)
    if rows.shape[1] != len(names):
        raise ValueError(f"its rows do not have the {len(names)} columns of its head")
    return first.removeprefix(begins), dict(zip(names, rows.T, strict=True))


def _read_npz(path: Path) -> tuple[str, Mapping[str, np.ndarray]]:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no .npz")
    with np.load(path) as archive:
        columns = {name: archive[name] for name in archive.files}
    return str(columns.pop(DESCRIPTION)), columns


def _read_parquet(path: Path) -> tuple[str, Mapping[str, np.ndarray]]:
    table = import_pyarrow().parquet.read_table(path)
    metadata = table.schema.metadata or {}
    return metadata[DESCRIPTION.encode()].decode(), {
        name: column.to_numpy() for name, column in zip(table.column_names, table.columns, strict=True)
    }


def _reason(error: Exception) -> str:
    return f"it lacks {error.args[0]!r}" if isinstance(error, KeyError) else str(error).splitlines()[0].strip()
