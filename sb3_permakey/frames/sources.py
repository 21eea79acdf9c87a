"""Frames in order from wherever they lie: a store, an array, a folder of pictures, a video."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sb3_permakey.extras import missing_package
from sb3_permakey.frames.store import DESCRIPTION, FrameStore

PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
LEAST_SHARE = 0.9
"""Of a video's frames; its own count of them is an estimate in some formats."""


class FrameSourceError(ValueError):
    """Frames that cannot be read."""


@dataclass(frozen=True)
class FrameSource:
    """Frames uint8 (H, W, C) with their episodes' numbers, to read once."""

    name: str
    frames: Iterator[tuple[int, np.ndarray]]
    total: int | None = None
    """How many there are, where that is known before they are read."""
    game: str | None = None
    """Atari game that they are of, where that is known."""
    size: tuple[int, int] | None = None
    """Height and width of the pictures that they were resized from, where that is not their own."""


def frames_at(path: Path) -> FrameSource:
    """Frames of a store, of an array in a .npy file, or of a folder of pictures in the order of their names' numbers.

    :param path: a folder, or a .npy file uint8 (N, H, W, 3), (N, H, W, 1) or (N, H, W)
    :raises FrameStoreError: when it is a store that is broken
    :raises FrameSourceError: when it is none of these
    """
    if (path / DESCRIPTION).exists():
        return _of_store(FrameStore(path))
    if path.is_dir():
        return _of_pictures(path)
    if path.suffix.lower() == ".npy" and path.exists():
        return _of_array(path)
    raise FrameSourceError(
        f"no frames at {path}: they are a folder that `collect` or `record_frames` wrote, a folder of pictures "
        f"({', '.join(PICTURES)}), or a .npy file uint8 (N, H, W, 3)"
    )


def frames_of_video(path: Path) -> FrameSource:
    """Frames uint8 (H, W, 3) of a video, each that it holds once.

    :raises ImportError: when OpenCV is not installed
    :raises FrameSourceError: when there is no video that can be read
    """
    try:
        import cv2
    except ImportError as error:
        raise missing_package("Reading videos needs OpenCV", "atari") from error
    if not path.is_file():
        raise FrameSourceError(f"no video at {path}")
    video = cv2.VideoCapture(str(path))
    if not video.isOpened():
        raise FrameSourceError(f"{path} is not a video that OpenCV can read")

    told = int(video.get(cv2.CAP_PROP_FRAME_COUNT))

    def frames() -> Iterator[tuple[int, np.ndarray]]:
        count = 0
        try:
            while (read := video.read())[0]:
                count += 1
                yield 0, cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)
        finally:
            video.release()
        if count < LEAST_SHARE * told:
            warnings.warn(f"{path} says that it has {told} frames, but {count} could be read", stacklevel=2)

    return FrameSource(str(path), frames(), told if told > 0 else None)


def _of_store(store: FrameStore) -> FrameSource:
    episodes = sorted(store.episodes, key=lambda episode: episode.index)
    frames = (
        (episode.index, frame)
        for episode in episodes
        for frame in store.splits[episode.split][episode.start : episode.start + episode.length]
    )
    game = store.description["game"] if store.is_atari else None
    return FrameSource(str(store.path), frames, sum(episode.length for episode in episodes), game)


def _of_array(path: Path) -> FrameSource:
    try:
        frames = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise FrameSourceError(f"{path} is not a whole .npy file ({error})") from error
    gray = frames.ndim == 3
    if frames.dtype != np.uint8 or frames.ndim not in (3, 4) or not (gray or frames.shape[3] in (1, 3)):
        raise FrameSourceError(
            f"{path} must hold frames uint8 (N, H, W, 3), or gray, not {frames.dtype} {frames.shape}"
        )
    return FrameSource(str(path), ((0, frame[..., None] if gray else frame) for frame in frames), len(frames))


def _of_pictures(folder: Path) -> FrameSource:
    paths = [path for path in folder.iterdir() if path.suffix.lower() in PICTURES]
    paths.sort(key=lambda path: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)])
    if not paths:
        raise FrameSourceError(f"{folder} holds neither frames.json of a store nor pictures ({', '.join(PICTURES)})")
    return FrameSource(str(folder), ((0, _picture(path)) for path in paths), len(paths))


def _picture(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except OSError as error:
        raise FrameSourceError(f"{path} is not a whole picture ({error})") from error
