"""The checkpoints that come with the package, found by name, and their teachers, which are fetched when asked for.

They lie in the folder `sb3_permakey/checkpoints`, each as `NAME.safetensors` beside one `index.json`:

    {
      "format": "sb3-permakey shipped checkpoints",
      "version": 1,
      "checkpoints": {
        "seaquest-noisy": {
          "game": "Seaquest",
          "method": "permakey",
          "noise": "both",
          "num_keypoints": 10,
          "command": "sb3-permakey pretrain ...",
          "minutes": 25.0,
          "fingerprint": "01ab...",
          "sha256": "23cd...",
          "scores": {"precision": 0.57, "recall": 0.74, "f1": 0.65}
        }
      }
    }

A name is in lower case, its words joined by hyphens. `noise` is null for clean frames. `command` trained the
checkpoint, in `minutes`. `fingerprint` is that of the model's weights, `sha256` the file's. `scores` are shares of 0 to
1 on test frames: `precision`, `recall`, `f1` and whatever else was measured.

Names that end in "-teacher" are whole PermaKey models of 4 MB. A clone of the project has them in the folder `teachers`
beside the others; an installed package has not, and fetches one by its name when it is first asked for.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from torch import hub

FOLDER = Path(str(resources.files("sb3_permakey") / "checkpoints"))
INDEX_FORMAT = "sb3-permakey shipped checkpoints"
INDEX_VERSION = 2
TEACHERS = "teachers"
"""The folder beside the package's checkpoints whose files are not packaged."""
OF_TEACHER = "-teacher"
"""How names of teachers end; without it they are their students'."""
HUB = "https://huggingface.co/sb3-permakey/keypoints/resolve/main"
"""Where teachers are fetched from, `URL/NAME.safetensors`."""
HUB_VARIABLE = "SB3_PERMAKEY_HUB"
"""An environment variable that names another place, such as "file:///folder"."""
TABLE_READINGS = {"pointnet": "", "peaks": "peaks_", "contrast": "contrast_"}
"""How keypoints were read when they were scored, and how names of such scores begin."""
TABLE_HEADER = ("name", "game", "method", "noise", "K", *TABLE_READINGS, "size")
TABLE_SCORES = ("precision", "recall", "f1")
TABLE_NOTE = (
    "Scores: precision / recall / F1 against the game's true objects, by each readout: pointnet; peaks, which is "
    "--readout peaks;\nand contrast, which is --readout peaks --surround-px 18. What is distilled is read as peaks. "
    "Whole models are named\nNAME-teacher; an installed package fetches one when it is first asked for."
)


class CheckpointError(ValueError):
    """A checkpoint that is missing, broken or not fit for what it is wanted for."""


@dataclass(frozen=True)
class ShippedCheckpoint:
    """One of the package's checkpoints."""

    name: str
    path: Path
    game: str
    """As make_atari_env takes it, "MsPacman"."""
    method: str
    """"permakey", "transporter", or "distilled" of a student, which peaks alone read."""
    noise: str | None
    """Bars on the frames: "horizontal", "vertical", "both", or None for clean frames."""
    num_keypoints: int
    command: str
    """What trained it."""
    minutes: float
    """How long that took."""
    scores: dict[str, float]
    """Shares of 0 to 1 on test frames: "precision", "recall", "f1" and more."""
    fingerprint: str
    """`model_fingerprint` of the model."""
    sha256: str
    """Of the file."""


def shipped_checkpoints() -> list[ShippedCheckpoint]:
    """The package's checkpoints, in the order of the index; none where there is no index.

    Files of teachers may be elsewhere: their `path` is then where `locate_checkpoint` will have put them.

    :raises CheckpointError: when the index is broken or names a file that is not there
    """
    path = FOLDER / "index.json"
    if not path.is_file():
        return []
    try:
        index = json.loads(path.read_text())
        if (index["format"], index["version"]) != (INDEX_FORMAT, INDEX_VERSION):
            raise ValueError(f"format {index['format']!r}, version {index['version']}")
        entries: dict[str, dict[str, Any]] = index["checkpoints"]
        found = [ShippedCheckpoint(name, _path(name), **entry) for name, entry in entries.items()]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is no index of checkpoints that this release reads ({error})") from error
    missing = [one.path.name for one in found if not (one.path.is_file() or one.name.endswith(OF_TEACHER))]
    if missing:
        raise CheckpointError(f"{path} names files that are not beside it: {', '.join(missing)}")
    return found


def _path(name: str) -> Path:
    """Where the file of that name is, or will be once it is fetched."""
    file = f"{name}.safetensors"
    if not name.endswith(OF_TEACHER):
        return FOLDER / file
    in_clone = FOLDER / TEACHERS / file
    return in_clone if in_clone.is_file() else Path(hub.get_dir()) / "sb3-permakey" / file


def locate_checkpoint(path_or_name: str | Path) -> Path:
    """The file that a path or the name of one of the package's checkpoints means; a teacher's is fetched if need be.

    An existing file comes before a name. A name has neither folder nor suffix; upper and lower case, hyphens and
    underscores make no difference.

    :raises CheckpointError: for a name that none of them has, or what cannot be fetched
    """
    if _is_path(path_or_name):
        return Path(path_or_name)
    checkpoint = shipped_checkpoint(str(path_or_name))
    return checkpoint.path if checkpoint.path.is_relative_to(FOLDER) else _fetched(checkpoint)


def shipped_checkpoint(name: str) -> ShippedCheckpoint:
    """The package's checkpoint of that name.

    :raises CheckpointError: when none has it
    """
    checkpoints = {_plain(checkpoint.name): checkpoint for checkpoint in shipped_checkpoints()}
    if _plain(name) in checkpoints:
        return checkpoints[_plain(name)]
    nearest = difflib.get_close_matches(_plain(name), checkpoints, n=1)
    none = "the package has none like it" if checkpoints else "the package has none of its own"
    hint = f"the nearest name is {checkpoints[nearest[0]].name!r}" if nearest else none
    raise CheckpointError(f"no keypoint checkpoint at or named {name!r}: {hint}, `sb3-permakey checkpoints` lists them")


def teacher_of(name: str) -> str | None:
    """The name of the teacher of the package's student of that name; None where there is none."""
    teacher = f"{name}{OF_TEACHER}"
    return teacher if checkpoint_exists(teacher) else None


def named_by_fingerprint(fingerprint: str | None) -> str | None:
    """The name of the package's checkpoint whose model has a fingerprint; None where there is none."""
    return next((one.name for one in shipped_checkpoints() if one.fingerprint == fingerprint), None)


def _fetched(checkpoint: ShippedCheckpoint) -> Path:
    """A checkpoint's file, from the hub unless it is here already."""
    path = checkpoint.path
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == checkpoint.sha256:
        return path
    url = f"{os.environ.get(HUB_VARIABLE, HUB).rstrip('/')}/{path.name}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        hub.download_url_to_file(url, str(path), hash_prefix=checkpoint.sha256, progress=False)
    except (OSError, RuntimeError, ValueError) as error:  # no such file, another sum, no URL
        raise CheckpointError(
            f"{checkpoint.name} is not in the package, and {url} does not give it ({error}): a clone of the project "
            f"has it, {HUB_VARIABLE} names another place, and `{checkpoint.command}` trains its like"
        ) from error
    return path


def _is_path(path_or_name: str | Path) -> bool:
    path = Path(path_or_name)
    return path.is_file() or bool(path.suffix) or path.name != str(path_or_name)


def checkpoint_exists(path_or_name: str | Path) -> bool:
    """Whether there is such a file, or a checkpoint of the package with such a name, fetched or not."""
    if _is_path(path_or_name):
        return Path(path_or_name).is_file()
    return _plain(str(path_or_name)) in {_plain(checkpoint.name) for checkpoint in shipped_checkpoints()}


def checkpoint_table(checkpoints: Sequence[ShippedCheckpoint]) -> str:
    """The checkpoints with their scores by each readout and file sizes, as a table of plain text."""
    rows = [TABLE_HEADER, *(_table_row(checkpoint) for checkpoint in checkpoints)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(TABLE_HEADER))]
    words = TABLE_HEADER.index("K")
    lines = [
        "  ".join(
            cell.ljust(width) if column < words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([*lines, "", TABLE_NOTE])


def _table_row(checkpoint: ShippedCheckpoint) -> tuple[str, ...]:
    scores = [[checkpoint.scores.get(prefix + score) for score in TABLE_SCORES] for prefix in TABLE_READINGS.values()]
    return (
        checkpoint.name,
        checkpoint.game,
        checkpoint.method,
        checkpoint.noise or "-",
        str(checkpoint.num_keypoints),
        *("-" if None in reading else " / ".join(f"{score:.2f}" for score in reading) for reading in scores),
        _size(checkpoint.path),
    )


def _size(path: Path) -> str:
    if not path.is_file():
        return "to fetch"
    size = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 50_000 else f"{size / 1e3:.0f} kB"


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
