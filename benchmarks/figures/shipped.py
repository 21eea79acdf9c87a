"""A picture of the package's checkpoints on clean frames, a column for each game: python -m benchmarks.figures shipped

Frames are not chosen: each game is played at random with one seed, and shown after the same number of steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness.command import run_command
from benchmarks.harness.play import played_frames
from benchmarks.keypoints.run import shipped_name
from sb3_permakey.figures import Row, draw_keypoints, enlarge, panel, save_png
from sb3_permakey.keypoints import KeypointDetector, shipped_checkpoints


@dataclass(frozen=True)
class PictureConfig:
    """What is shown."""

    games: tuple[str, ...] = tuple(sorted({one.game for one in shipped_checkpoints() if one.method == "transporter"}))
    """Columns; games with both methods."""
    steps: int = 150
    """Agent steps of random play before the frame."""
    seed: int = 0
    """Of every game and its player."""
    out: Path = Path("docs/games.png")
    """PNG file to write."""


def played_frame(game: str, steps: int, seed: int) -> np.ndarray:
    """The frame, uint8 (84, 84, 3), after so many random steps."""
    return played_frames(game, steps + 1, seed)[-1]


def rows(config: PictureConfig) -> list[Row]:
    """Frames, keypoints of the Transporter, of PermaKey's PointNet, and peaks, one game a column."""
    frames = [played_frame(game, config.steps, config.seed) for game in config.games]
    readings = {
        "Transporter": ("transporter", "pointnet"),
        "PermaKey,\nPointNet": ("permakey", "pointnet"),
        "PermaKey,\npeaks": ("permakey", "peaks"),
    }
    rows: list[Row] = [("frame", [enlarge(frame) for frame in frames])]
    for label, (method, name) in readings.items():
        pictures = []
        for game, frame in zip(config.games, frames, strict=True):
            detector = KeypointDetector(shipped_name(game, method, "clean"), readout=name, precision="float32")
            [centers] = detector.detect(frame[None]).centers
            pictures.append(draw_keypoints(frame, centers, None))
        rows.append((label, pictures))
    return rows


def main(config: PictureConfig) -> None:
    """Draw and write the picture."""
    save_png(config.out, panel(rows(config)))
    print(f"{config.out}: {', '.join(config.games)}")


def command() -> None:
    """The command line."""
    run_command("figures.shipped", PictureConfig, main)


if __name__ == "__main__":
    command()
