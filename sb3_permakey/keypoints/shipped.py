"""The checkpoints that come with the package, found by name.

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
          "scores": {"precision": 0.57, "recall": 0.74, "f1": 0.65}
        }
      }
    }

A name is in lower case, its words joined by hyphens. `noise` is null for clean frames. `command` trained the
checkpoint, in `minutes`. `scores` are shares of 0 to 1 on test frames: `precision`, `recall`, `f1` and whatever else
was measured.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

FOLDER = Path(str(resources.files("sb3_permakey") / "checkpoints"))
INDEX_FORMAT = "sb3-permakey shipped checkpoints"
INDEX_VERSION = 1
TABLE_READINGS = {"pointnet": "", "peaks": "peaks_", "contrast": "contrast_"}
"""How keypoints were read when they were scored, and how names of such scores begin."""
TABLE_HEADER = ("name", "game", "method", "noise", "K", *TABLE_READINGS, "size")
TABLE_SCORES = ("precision", "recall", "f1")
TABLE_NOTE = (
    "Scores: precision / recall / F1 against the game's true objects, by each readout: pointnet; peaks, which is "
    "--readout peaks;\nand contrast, which is --readout peaks --surround-px 18."
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


def shipped_checkpoints() -> list[ShippedCheckpoint]:
    """The package's checkpoints, in the order of the index; none where there is no index.

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
        found = [ShippedCheckpoint(name, FOLDER / f"{name}.safetensors", **entry) for name, entry in entries.items()]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is no index of checkpoints that this release reads ({error})") from error
    missing = [checkpoint.path.name for checkpoint in found if not checkpoint.path.is_file()]
    if missing:
        raise CheckpointError(f"{path} names files that are not beside it: {', '.join(missing)}")
    return found


def locate_checkpoint(path_or_name: str | Path) -> Path:
    """The file that a path or the name of one of the package's checkpoints means.

    An existing file comes before a name. A name has neither folder nor suffix; upper and lower case, hyphens and
    underscores make no difference.

    :raises CheckpointError: for a name that none of them has
    """
    path = Path(path_or_name)
    if path.is_file() or path.suffix or path.name != str(path_or_name):
        return path
    checkpoints = {_plain(checkpoint.name): checkpoint for checkpoint in shipped_checkpoints()}
    if _plain(path.name) in checkpoints:
        return checkpoints[_plain(path.name)].path
    nearest = difflib.get_close_matches(_plain(path.name), checkpoints, n=1, cutoff=0)
    hint = f"the nearest name is {checkpoints[nearest[0]].name!r}" if nearest else "the package has none of its own"
    raise CheckpointError(
        f"no keypoint checkpoint at or named {str(path_or_name)!r}: {hint}, `sb3-permakey checkpoints` lists them"
    )


def checkpoint_exists(path_or_name: str | Path) -> bool:
    """Whether there is such a file, or a checkpoint of the package with such a name."""
    try:
        return locate_checkpoint(path_or_name).is_file()
    except CheckpointError:
        return False


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
    size = checkpoint.path.stat().st_size
    scores = [[checkpoint.scores.get(prefix + score) for score in TABLE_SCORES] for prefix in TABLE_READINGS.values()]
    return (
        checkpoint.name,
        checkpoint.game,
        checkpoint.method,
        checkpoint.noise or "-",
        str(checkpoint.num_keypoints),
        *("-" if None in reading else " / ".join(f"{score:.2f}" for score in reading) for reading in scores),
        f"{size / 1e6:.1f} MB" if size >= 50_000 else f"{size / 1e3:.0f} kB",
    )


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
