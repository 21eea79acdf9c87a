"""`sb3-permakey show`: pictures of a checkpoint's keypoints and error maps on the test frames of a store."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image

from sb3_permakey.commands.output import name_next, say, suggest
from sb3_permakey.envs.distractors import DistractorKind
from sb3_permakey.envs.named import NamedEnvironment
from sb3_permakey.figures import (
    Row,
    draw_attention,
    keypoint_animation,
    keypoint_panel,
    save_gif,
    save_png,
    side_by_side,
)
from sb3_permakey.files import require_writable
from sb3_permakey.frames.reader import FrameReader
from sb3_permakey.frames.store import FrameStore
from sb3_permakey.keypoints import READOUTS, KeypointDetector, ReadoutConfig, load_checkpoint, warn_of_another_game
from sb3_permakey.play.evaluation import FRAMES_PER_SECOND
from sb3_permakey.play.saved_agents import FrameAgent
from sb3_permakey.settings import NO_DEFAULT, require_at_least, require_range, require_suffix

FIRST = 100
"""The first frame that is shown where nothing else is said: by then a game has begun."""
MOST_COLUMNS, MOST_GIF_FRAMES = 100, 2_000
"""So that the pictures fit into memory."""


@dataclass(frozen=True)
class ShowConfig:
    """Draw keypoints and error maps on test frames."""

    checkpoint: Path
    """Keypoint checkpoint, a file or a name that `sb3-permakey checkpoints` lists."""
    frames: Path
    """Folder of frames that `collect` or `record_frames` wrote."""
    out: Path
    """PNG file: frames, keypoints with their windows, error maps of each layer."""
    agent: Annotated[Path | None, NO_DEFAULT] = None
    """Saved agent with the encoder attention: where it looks is drawn too."""
    gif: Annotated[Path | None, NO_DEFAULT] = None
    """GIF file: keypoints over consecutive frames."""
    columns: int = 6
    """Frames of the PNG at most."""
    spacing: int = 8
    """Steps between two frames of the PNG."""
    first: Annotated[int | None, tyro.conf.arg(help_behavior_hint=f"({FIRST}, or 0 where there are no more)")] = None
    """First test frame to show."""
    gif_frames: int = 150
    """Frames of the GIF at most."""
    readout: ReadoutConfig = field(default_factory=ReadoutConfig)
    """How keypoints are read. Without --readout: in every way that the model allows, one under the other in the PNG,
    side by side in the GIF."""
    distractor: Annotated[DistractorKind | None, NO_DEFAULT] = None
    """Bars of noisy Atari, drawn on the frames."""

    def __post_init__(self) -> None:
        require_range(1, MOST_COLUMNS, columns=self.columns)
        require_range(1, MOST_GIF_FRAMES, gif_frames=self.gif_frames)
        require_at_least(1, spacing=self.spacing)
        require_at_least(0, first=self.first)
        require_suffix(".png", out=self.out)
        require_suffix(".gif", gif=self.gif)
        if self.gif is None and self.gif_frames != type(self).gif_frames:
            raise ValueError("gif_frames is of the GIF: give gif, the file to write")


def run(config: ShowConfig) -> None:
    """Draw keypoints."""
    store, columns, gif_frames = show(config)
    say(f"{config.out}: keypoints and error maps on {columns} frames")
    if config.gif:
        say(f"{config.gif}: keypoints over {gif_frames} consecutive frames")
    settings = config.readout.as_flags()
    if store.is_atari or store.env:
        environment = NamedEnvironment(None if store.env else store.game, store.env)
        flags = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", value)]
        out = f"{environment.file_name.lower()}-agent"
        name_next("train", *environment.flags, "--checkpoint", config.checkpoint, *flags, "--out", out)
    else:
        arguments = ["env", json.dumps(str(config.checkpoint))]
        arguments += [f"{name}={json.dumps(value)}" for name, value in settings.items()]
        suggest(f"in Python, PermaKeyObservation({', '.join(arguments)})")


def show(config: ShowConfig) -> tuple[FrameStore, int, int]:
    """Draw the pictures.

    :param config: what to draw
    :return: the store of the frames, and how many of them the PNG and the GIF show
    :raises CheckpointError: when the checkpoint is missing or broken
    :raises FrameStoreError: when the frames are
    :raises ValueError: when the model cannot be read as wanted, or `first` is beyond the frames
    :raises WriteError: when a picture cannot be written
    """
    require_writable(config.out, config.gif)
    detectors = _detectors(config)
    store = FrameStore(config.frames)
    warn_of_another_game(config.checkpoint, store.game)
    detectors[0].check_channels(store.splits["test"].shape[-1])
    reader = FrameReader(store, detectors[0].device, config.distractor)
    size = reader.size("test")
    first = config.first if config.first is not None else FIRST if size > FIRST else 0
    require_range(0, size - 1, first=first)
    after = np.arange(first, size)
    indices = after[:: config.spacing][: config.columns]
    shown = reader.frames("test", indices)
    further: list[Row] = []
    looked: list[Image.Image] = []
    if config.agent is not None:
        until = max(indices[-1] + 1, first + config.gif_frames if config.gif else 0)
        looked = attention_pictures(config.agent, config.checkpoint, reader, after[: until - first])
        further = [("attention", [looked[index - first] for index in indices])]
    save_png(config.out, keypoint_panel(detectors, shown, further))
    if config.gif is None:
        return store, len(shown), 0
    consecutive = reader.frames("test", after[: config.gif_frames])
    animations = [keypoint_animation(detector, consecutive) for detector in detectors]
    titles = [detector.readout.kind.label for detector in detectors]
    if looked:
        animations.append(looked[: len(consecutive)])
        titles.append("attention")
    beside = zip(*animations, strict=True)
    pictures = [side_by_side(row, titles, f"test frame {number}") for number, row in enumerate(beside, first)]
    save_gif(config.gif, pictures, FRAMES_PER_SECOND)
    return store, len(shown), len(consecutive)


def attention_pictures(agent: Path, checkpoint: Path, reader: FrameReader, indices: np.ndarray) -> list[Image.Image]:
    """Test frames that follow each other, with where an agent looks that sees all of them.

    :param agent: its file
    :param checkpoint: keypoint checkpoint
    :param reader: gives the frames
    :param indices: of the frames
    :raises AgentFileError: when it is none with the encoder attention, or learned from other keypoints
    """
    player = FrameAgent(agent, checkpoint)
    starts, _ = reader.episode_bounds("test", indices)
    pictures = []
    for frame, index, start in zip(reader.frames("test", indices), indices, starts, strict=True):
        begins = np.array([index in (start, indices[0])])
        [look] = player.looks(player.observe(frame[None], begins))
        pictures.append(draw_attention(frame, *look))
    return pictures


def _detectors(config: ShowConfig) -> list[KeypointDetector]:
    """One for each reading that is drawn."""
    readout = config.readout
    model = load_checkpoint(config.checkpoint)
    given = readout.given()
    readings = [
        readout.read_by(kind) for kind in READOUTS.values() if kind.reads(model) or (given and kind.takes(given))
    ]
    if readout.is_named:
        readings = [readout]
    return [KeypointDetector(config.checkpoint, streaming=True, readout=reading) for reading in readings]
