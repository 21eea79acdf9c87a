"""`sb3-permakey detect`: keypoints of frames, of a video or of a game, as a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from tqdm import tqdm

from sb3_permakey.commands.output import say, suggest
from sb3_permakey.envs.atari import atari_env_id, make_atari_env, plain_game_name
from sb3_permakey.envs.resizing import resize
from sb3_permakey.files import locked_file, require_writable
from sb3_permakey.frames.sources import FrameSource, FrameSourceError, frames_at, frames_of_video
from sb3_permakey.keypoints import KeypointDetector, Keypoints, ReadoutConfig, model_fingerprint, warn_of_another_game
from sb3_permakey.keypoints.recorded import FORMATS, RecordedKeypoints, require_format, write_keypoints
from sb3_permakey.provenance import provenance
from sb3_permakey.settings import NO_DEFAULT, require_at_least, require_one, require_seed, require_suffix

GAME_FRAMES = 1_000
"""Of a game where nothing else is said."""
BATCH_SIZE = 32


@dataclass(frozen=True)
class DetectConfig:
    """Write the keypoints of frames, of a video or of a game to a file."""

    checkpoint: Path
    """Keypoint checkpoint, a file or a name that `sb3-permakey checkpoints` lists."""
    out: Path
    """File to write; its ending says how: .parquet, .npz or .csv."""
    frames: Annotated[Path | None, NO_DEFAULT] = None
    """Frames: a folder that `collect` or `record_frames` wrote, one of pictures, or a .npy file uint8 (N, H, W, 3).
    Frames of another size than 84x84 are resized whole, whatever their aspect."""
    video: Annotated[Path | None, NO_DEFAULT] = None
    """Video, whose frames are resized likewise."""
    game: Annotated[str | None, NO_DEFAULT] = None
    """Game, e.g. MsPacman, played at random; y_px and x_px are on the emulator's own picture."""
    limit: Annotated[int | None, tyro.conf.arg(help_behavior_hint=f"(all; of a game {GAME_FRAMES})")] = None
    """Frames at most, from the first on."""
    features: bool = False
    """Whether the file holds each keypoint's features too."""
    readout: ReadoutConfig = field(default_factory=ReadoutConfig)
    """How keypoints are read."""
    seed: int = 0
    """Seed of the game."""
    device: str = "auto"
    """Where the network runs."""

    def __post_init__(self) -> None:
        require_one(frames=self.frames, video=self.video, game=self.game)
        require_at_least(1, limit=self.limit)
        require_suffix(FORMATS, out=self.out)
        require_seed(self.seed)
        if self.game is None and self.seed != type(self).seed:
            raise ValueError("seed is of a game: frames and videos are what they are")


def run(config: DetectConfig) -> None:
    """Detect keypoints."""
    keypoints = detect(config)
    count, per_frame = keypoints.places.shape
    episodes = len(np.unique(keypoints.episodes))
    height, width = keypoints.size
    of = f"{count} frames of {width}x{height} pixels" + (f" in {episodes} episodes" if episodes > 1 else "")
    say(f"{config.out}: {per_frame} keypoints on each of {of}")
    suggest(f"in Python, sb3_permakey.keypoints.read_keypoints({json.dumps(str(config.out))})")


def detect(config: DetectConfig) -> RecordedKeypoints:
    """Detect keypoints and write the file.

    :param config: what to read
    :return: what was written
    :raises CheckpointError: when the checkpoint is missing or broken
    :raises FrameSourceError: when the frames are
    :raises ImportError: when a package is missing that reads or writes such a file
    :raises ValueError: when the model cannot be read as wanted
    :raises WriteError: when the file cannot be written, or another run is writing it
    """
    require_format(config.out)
    require_writable(config.out)
    detector = KeypointDetector(config.checkpoint, device=config.device, streaming=True, readout=config.readout)
    source = _source(config)
    if source.game:
        warn_of_another_game(config.checkpoint, plain_game_name(source.game))
    with locked_file(config.out):
        keypoints = detect_in(source, detector, config.limit, features=config.features)
        description = {
            "source": source.name,
            "checkpoint": str(config.checkpoint),
            "tensors_sha256": model_fingerprint(detector.model),
            "readout": asdict(detector.readout),
            **provenance(),
        }
        keypoints = RecordedKeypoints(**{**vars(keypoints), "description": description})
        write_keypoints(config.out, keypoints)
    return keypoints


def detect_in(
    source: FrameSource, detector: KeypointDetector, limit: int | None = None, *, features: bool = False
) -> RecordedKeypoints:
    """Keypoints of a source's frames, each followed through its episode where the readout's own order changes.

    :param source: frames, which are read
    :param detector: a detector
    :param limit: frames at most; None: all
    :param features: whether to keep features
    :raises FrameSourceError: when there are no frames, or frames of different sizes
    :raises CheckpointError: when the model takes images of other channels
    """
    tracker = detector.tracker()
    size = source.size
    numbers: list[np.ndarray] = []
    places: list[np.ndarray] = []
    parts: list[Keypoints] = []
    total = source.total if limit is None or source.total is None else min(limit, source.total)
    with tqdm(total=total, desc=f"keypoints of {source.name}", unit="frame") as bar:
        for episodes, frames in _batches(islice(source.frames, limit), source.name):
            size = size or (frames.shape[1], frames.shape[2])
            detected = detector.candidates(_as_the_model_takes_them(frames, detector))
            order = np.tile(np.arange(detected.centers.shape[1]), (len(frames), 1))
            if tracker is not None:
                before = numbers[-1][-1] if numbers else -1
                starts = np.diff(episodes, prepend=before) != 0
                order = tracker.orders(detected, starts, rows=[0] * len(frames))
            numbers.append(episodes)
            places.append(order)
            parts.append(_in_order(detected, order))
            bar.update(len(frames))
    if size is None or not parts:
        raise FrameSourceError(f"{source.name} holds no frames")
    episode = np.concatenate(numbers)
    confidence = [part.confidence for part in parts if part.confidence is not None]
    return RecordedKeypoints(
        np.arange(len(episode)),
        episode,
        np.concatenate(places),
        np.concatenate([part.centers for part in parts]),
        size,
        np.concatenate(confidence) if confidence else None,
        np.concatenate([part.features for part in parts]) if features else None,
    )


def _source(config: DetectConfig) -> FrameSource:
    if config.frames is not None:
        return frames_at(config.frames)
    if config.video is not None:
        return frames_of_video(config.video)
    assert config.game is not None
    game, count = atari_env_id(config.game), config.limit or GAME_FRAMES
    with closing(make_atari_env(game)) as env:
        height, width = env.get_wrapper_attr("ale").getScreenDims()
    return FrameSource(game, islice(_random_play(game, config.seed), count), count, game, (height, width))


def _random_play(game: str, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """Frames of whole games under random actions, without an end."""
    episode = 0
    with closing(make_atari_env(game, seed=seed, training=False)) as env:
        frame, _ = env.reset()
        while True:
            yield episode, frame
            frame, _, terminated, truncated, _ = env.step(env.action_space.sample())
            if terminated or truncated:
                episode += 1
                frame, _ = env.reset()


def _batches(frames: Iterator[tuple[int, np.ndarray]], name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Episodes (B,) and frames (B, H, W, C)."""
    read, first = 0, None
    while batch := list(islice(frames, BATCH_SIZE)):
        for number, (_, frame) in enumerate(batch, read):
            first = first or frame.shape
            if frame.shape != first:
                raise FrameSourceError(f"frame {number} of {name} is {frame.shape}, the first was {first}")
        read += len(batch)
        episodes, pictures = zip(*batch, strict=True)
        yield np.array(episodes), np.stack(pictures)


def _as_the_model_takes_them(frames: np.ndarray, detector: KeypointDetector) -> np.ndarray:
    """Frames (B, H, W, C) resized; gray ones repeated to three channels where the model takes three."""
    frames = resize(frames)
    return np.repeat(frames, 3, axis=-1) if (frames.shape[-1], detector.config.image_channels) == (1, 3) else frames


def _in_order(keypoints: Keypoints, order: np.ndarray) -> Keypoints:
    rows = np.arange(len(order))[:, None]
    return Keypoints(*(None if values is None else values[rows, order] for values in keypoints))
