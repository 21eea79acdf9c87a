"""The paper's figures 2, 5, 6, 7, 8 and 10 from keypoint checkpoints, on test frames of one game.

    python -m benchmarks.figures.paper figure2 --permakey mspacman-teacher --transporter mspacman-transporter \\
        --frames frames/mspacman --out figure2.png

Where the paper sets several games side by side (figures 2 and 10), each game is a picture of its own here. A checkpoint
is a file or a name that `sb3-permakey checkpoints` lists. Frames, and the checkpoints of each figure, come from these
commands:

    sb3-permakey collect --game MsPacman --out frames/mspacman             # and Enduro, Frostbite, SpaceInvaders

Figure 2; for its part (b), noisy Atari, add `--distractor both` to pretrain and to figure2 (frames are stored clean):

    sb3-permakey pretrain --frames frames/mspacman --num-keypoints 7 --out mspacman.safetensors
    sb3-permakey pretrain --frames frames/mspacman --num-keypoints 7 --method transporter \\
        --out mspacman-transporter.safetensors

Figures 5 and 8 (`seeds`), for seeds 0 to 4:

    sb3-permakey pretrain --frames frames/enduro --num-keypoints 10 --seed 0 --out enduro-0.safetensors

Figure 6, the first as it is, then for 20 and 25 keypoints on the first one's VAE and LSPN:

    sb3-permakey pretrain --frames frames/frostbite --num-keypoints 15 --out frostbite-15.safetensors
    sb3-permakey pretrain --frames frames/frostbite --num-keypoints 20 --frozen-from frostbite-15.safetensors \\
        --out frostbite-20.safetensors

Figure 7, for `--layers 0`, `0 1`, `2 3` and `0 1 2 3`, each with an LSPN of its own:

    sb3-permakey pretrain --frames frames/spaceinvaders --num-keypoints 25 --layers 0 1 --out layers-01.safetensors

Figure 10 takes any of them. Where time is short, PermaKey's trainings take `--schedule staged` as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.harness.command import run_one_of
from sb3_permakey.envs.distractors import DistractorKind
from sb3_permakey.figures import Row, draw_keypoints, enlarge, error_map_rows, keypoint_colors, panel, save_png
from sb3_permakey.frames.reader import FrameReader
from sb3_permakey.frames.store import FrameStore
from sb3_permakey.keypoints import KeypointDetector, Transporter
from sb3_permakey.keypoints.layers import gaussian_windows


@dataclass(frozen=True, kw_only=True)
class FigureConfig:
    """What all figures share."""

    frames: Path
    """Folder of frames that `collect` wrote; its test frames are shown."""
    out: Path
    """PNG file to write."""
    columns: int = 6
    """Frames to show."""
    spacing: int = 8
    """Steps between two of them."""
    first: int = 100
    """First test frame to show."""
    distractor: DistractorKind | None = None
    """Bars of noisy Atari, drawn on the frames."""

    def __post_init__(self) -> None:
        for name, least in (("columns", 1), ("spacing", 1), ("first", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class CheckpointsConfig(FigureConfig):
    """What the figures of several checkpoints share."""

    checkpoints: tuple[Path, ...]
    """Keypoint checkpoints, in the order of their colours or rows."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.checkpoints:
            raise ValueError("checkpoints must name at least one checkpoint")


@dataclass(frozen=True, kw_only=True)
class Figure2(FigureConfig):
    """Frames, keypoints of the Transporter and of PermaKey, error maps of PermaKey's layers."""

    permakey: Path
    """PermaKey's checkpoint."""
    transporter: Path
    """Transporter's checkpoint."""
    peaks: bool = False
    """Another row: the highest peaks of the error maps instead of the PointNet's keypoints."""
    surround_px: float | None = None
    """Another row: peaks of the maps' contrast to a square of this side; None: no such row."""


@dataclass(frozen=True, kw_only=True)
class Seeds(CheckpointsConfig):
    """figure5 and figure8: frames, and the keypoints of several seeds on them, one colour per checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Figure6(CheckpointsConfig):
    """Frames, and a row of keypoints for each checkpoint, labelled with its number of keypoints."""


@dataclass(frozen=True, kw_only=True)
class Figure7(CheckpointsConfig):
    """Frames, and a row of keypoints for each PermaKey checkpoint, labelled with its layers."""


@dataclass(frozen=True, kw_only=True)
class Figure10(FigureConfig):
    """Frames, keypoints' centres, and the frames dimmed outside the keypoints' windows."""

    checkpoint: Path
    """Keypoint checkpoint."""


def chosen_frames(config: FigureConfig) -> np.ndarray:
    """The test frames to show, with their bars: uint8 (B, 84, 84, 3).

    :raises ValueError: when there are not enough of them
    """
    reader = FrameReader(FrameStore(config.frames), torch.device("cpu"), config.distractor)
    indices = config.first + config.spacing * np.arange(config.columns)
    if indices[-1] >= reader.size("test"):
        raise ValueError(
            f"{config.frames} holds {reader.size('test')} test frames, but the last of {config.columns} columns would "
            f"be frame {indices[-1]}: take a smaller first, spacing or number of columns"
        )
    return reader.frames("test", indices)


def figure2_rows(config: Figure2, frames: np.ndarray) -> list[Row]:
    """Rows of figure 2.

    :raises ValueError: when a checkpoint is of the other method
    """
    transporter, permakey = KeypointDetector(config.transporter), KeypointDetector(config.permakey)
    if transporter.model.kind != Transporter.kind:
        raise ValueError(f"{config.transporter} is a {type(transporter.model).__name__}, not a Transporter")
    error_maps = error_map_rows(permakey, frames)
    rows = [keypoint_row("Transporter\nkeypoints", transporter, frames)]
    rows.append(keypoint_row("PermaKey\nkeypoints", permakey, frames))
    if config.peaks:
        rows.append(keypoint_row("PermaKey\npeaks", KeypointDetector(config.permakey, readout="peaks"), frames))
    if config.surround_px is not None:
        contrast = KeypointDetector(config.permakey, readout="peaks", surround_px=config.surround_px)
        rows.append(keypoint_row("PermaKey\npeaks of\ncontrast", contrast, frames))
    return [frame_row(frames), *rows, *error_maps]


def seeds_rows(config: Seeds, frames: np.ndarray) -> list[Row]:
    """Rows of figures 5 and 8."""
    centers = [KeypointDetector(checkpoint).detect(frames).centers for checkpoint in config.checkpoints]
    return [frame_row(frames), (f"keypoints\nof {len(centers)} seeds", draw_together(frames, centers))]


def figure6_rows(config: Figure6, frames: np.ndarray) -> list[Row]:
    """Rows of figure 6."""
    detectors = [KeypointDetector(checkpoint) for checkpoint in config.checkpoints]
    rows = [keypoint_row(f"{detector.num_keypoints}\nkeypoints", detector, frames) for detector in detectors]
    return [frame_row(frames), *rows]


def figure7_rows(config: Figure7, frames: np.ndarray) -> list[Row]:
    """Rows of figure 7.

    :raises ValueError: when a checkpoint has no layers to name
    """
    rows = [frame_row(frames)]
    for checkpoint in config.checkpoints:
        detector = KeypointDetector(checkpoint)
        if not detector.model.error_map_layers:
            raise ValueError(
                f"{checkpoint} is a {type(detector.model).__name__}, which predicts no layers: PermaKey does"
            )
        layers = ", ".join(str(layer) for layer in detector.model.error_map_layers)
        rows.append(keypoint_row(f"layers\n({layers})", detector, frames))
    return rows


def figure10_rows(config: Figure10, frames: np.ndarray) -> list[Row]:
    """Rows of figure 10."""
    detector = KeypointDetector(config.checkpoint)
    windows = dim_outside_windows(frames, detector.detect(frames).centers, detector.config.window_std)
    return [
        frame_row(frames),
        keypoint_row("keypoints'\ncentres", detector, frames),
        ("keypoints'\nwindows", [enlarge(frame) for frame in windows]),
    ]


def frame_row(frames: np.ndarray) -> Row:
    """The row of the frames themselves, uint8 (B, 84, 84, 3)."""
    return "frame", [enlarge(frame) for frame in frames]


def keypoint_row(label: str, detector: KeypointDetector, frames: np.ndarray) -> Row:
    """A row of frames uint8 (B, 84, 84, 3) with a dot at each keypoint."""
    centers = detector.detect(frames).centers
    return label, [draw_keypoints(frame, points, None) for frame, points in zip(frames, centers, strict=True)]


def draw_together(frames: np.ndarray, centers: Sequence[np.ndarray]) -> list[Image.Image]:
    """Frames with the keypoints of several detectors, one colour per detector.

    :param frames: uint8 (B, 84, 84, 3)
    :param centers: of each detector (B, K, 2), (y, x) in [-1, 1]; K may differ
    """
    counts = [points.shape[1] for points in centers]
    colors = [color for color, count in zip(keypoint_colors(len(centers)), counts, strict=True) for _ in range(count)]
    together = np.concatenate(centers, axis=1)
    return [draw_keypoints(frame, points, None, colors=colors) for frame, points in zip(frames, together, strict=True)]


def dim_outside_windows(frames: np.ndarray, centers: np.ndarray, window_std: float) -> np.ndarray:
    """Frames times the sum of the keypoints' windows, at most 1.

    :param frames: uint8 (B, H, H, 3)
    :param centers: (B, K, 2), (y, x) in [-1, 1]
    :param window_std: width of the windows in the same coordinates
    :return: uint8 (B, H, H, 3)
    """
    windows = gaussian_windows(torch.from_numpy(centers), frames.shape[1], window_std).sum(1).clamp(max=1)
    return np.rint(frames * windows.unsqueeze(-1).numpy()).astype(np.uint8)


FIGURES: dict[str, tuple[type, Callable[[Any, np.ndarray], list[Row]]]] = {
    "figure2": (Figure2, figure2_rows),
    "seeds": (Seeds, seeds_rows),
    "figure6": (Figure6, figure6_rows),
    "figure7": (Figure7, figure7_rows),
    "figure10": (Figure10, figure10_rows),
}


def make_figure(rows: Callable[[Any, np.ndarray], list[Row]], config: FigureConfig) -> None:
    """Make one figure."""
    save_png(config.out, panel(rows(config, chosen_frames(config))))
    print(f"{config.out}: {type(config).__name__.lower()}, {config.columns} frames of {config.frames}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make one figure; wrong input ends with one sentence and exit code 2."""
    run_one_of(
        "figures.paper",
        {name: (kind, partial(make_figure, rows)) for name, (kind, rows) in FIGURES.items()},
        "The paper's figures from keypoint checkpoints; this script's head says how to train them.",
        arguments,
    )


if __name__ == "__main__":
    main()
