"""Frame stores: whole episodes of uint8 frames in memory-mapped files, with a description of how they were made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sb3_permakey.envs.atari import plain_game_name
from sb3_permakey.files import atomic_array, write_json
from sb3_permakey.keypoints.layers import IMAGE_SIZE

VERSION = 1
DESCRIPTION = "frames.json"
SPLITS = ("train", "valid", "test")


class FrameStoreError(ValueError):
    """A frame store that is missing, broken or made in another way than wanted."""


@dataclass(frozen=True)
class Episode:
    """Where one episode lies in a store."""

    index: int
    """Number of the episode in the collection; with the collection's seed it determines the episode."""
    split: str
    """"train", "valid" or "test"."""
    start: int
    """Index of its first frame in the split's array."""
    length: int
    """Number of frames."""


class FrameStore:
    """A finished store, open for reading.

    :param path: folder that holds frames.json and one array per split
    :raises FrameStoreError: when it is missing, unfinished, of another version or of frames of another size
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        description = self.path / DESCRIPTION
        if not description.is_file():
            raise FrameStoreError(f"no finished frame store at {path} (it has no {DESCRIPTION})")
        try:
            self.description: dict[str, Any] = json.loads(description.read_text())
            version = self.description["version"]
            if version != VERSION:
                raise FrameStoreError(f"{path} has frame store version {version}, this release reads {VERSION}")
            for key in ("game", "preprocessing"):
                self.description[key]
            self.episodes = [Episode(**episode) for episode in self.description["episodes"]]
            self.splits: Mapping[str, np.ndarray] = {
                split: np.load(self.path / f"{split}.npy", mmap_mode="r") for split in SPLITS
            }
        except (KeyError, TypeError, OSError, ValueError) as error:
            if isinstance(error, FrameStoreError):
                raise
            raise FrameStoreError(f"{path} is not a whole frame store ({error})") from error
        for split, frames in self.splits.items():
            described = sum(episode.length for episode in self.episodes if episode.split == split)
            if frames.ndim == 4 and frames.shape[1:3] != (IMAGE_SIZE, IMAGE_SIZE):
                height, width = frames.shape[1:3]
                raise FrameStoreError(f"{path} holds frames of {height}x{width} pixels, but keypoints are of 84x84")
            if frames.dtype != np.uint8 or frames.ndim != 4 or len(frames) != described:
                raise FrameStoreError(
                    f"{path}/{split}.npy holds {frames.dtype} {frames.shape}, "
                    f"but frames.json describes {described} uint8 frames"
                )

    @property
    def game(self) -> str:
        """The frames' game, as `make_atari_env` takes it, or the name of another environment."""
        return plain_game_name(self.description["game"])

    @property
    def env(self) -> str | None:
        """The name of an environment of one's own, as `make_own_env` takes it; None where there is none."""
        return self.description.get("env")

    @property
    def is_atari(self) -> bool:
        """Whether the frames are of a game that `make_atari_env` makes."""
        return self.description["preprocessing"] is not None

    def require_preprocessing(self, expected: Mapping[str, Any]) -> None:
        """Raise FrameStoreError unless Atari frames were made with the given preprocessing.

        Frames of an environment of one's own have none to compare: what they look like is its own affair.
        """
        if not self.is_atari:
            return
        found = self.description["preprocessing"]
        differing = sorted(key for key in {*found, *expected} if found.get(key) != expected.get(key))
        if differing:
            key = differing[0]
            raise FrameStoreError(
                f"{self.path} was made with other preprocessing: {key} is {found.get(key)}, not {expected.get(key)}"
            )


def write_store(
    path: str | Path, episodes: Sequence[np.ndarray], shares: tuple[float, float, float], description: dict[str, Any]
) -> FrameStore:
    """Lay episodes out by split and write a store; frames.json comes last and makes it whole.

    Each episode goes, in order, to the split that lacks the most frames of its share, so that splits hold whole
    episodes and equal input gives an equal store.

    :param path: folder to write
    :param episodes: uint8 arrays (length, 84, 84, C), which may be memory-mapped
    :param shares: parts of train, valid and test
    :param description: how the frames were made; game and preprocessing among it
    """
    path = Path(path)
    if len(episodes) < len(SPLITS):
        raise FrameStoreError(
            f"{len(episodes)} episode(s) cannot be split into {', '.join(SPLITS)}; collect more frames, "
            "or cut episodes sooner"
        )
    sizes = np.zeros(len(SPLITS), dtype=np.int64)
    placed: list[Episode] = []
    for index, frames in enumerate(episodes):
        total = sizes.sum() + len(frames)
        empty = [split for split in range(len(SPLITS)) if not sizes[split]]
        must_fill = len(episodes) - index == len(empty)
        candidates = empty if must_fill else range(len(SPLITS))
        chosen = max(candidates, key=lambda split: shares[split] * total - sizes[split])
        placed.append(Episode(index, SPLITS[chosen], int(sizes[chosen]), len(frames)))
        sizes[chosen] += len(frames)
    for split, size in zip(SPLITS, sizes, strict=True):
        with atomic_array(path / f"{split}.npy", np.uint8, (int(size), *episodes[0].shape[1:])) as array:
            for episode in placed:
                if episode.split == split:
                    array.append(episodes[episode.index])
    write_json(
        path / DESCRIPTION,
        {"version": VERSION, **description, "episodes": [asdict(episode) for episode in placed]},
    )
    return FrameStore(path)
