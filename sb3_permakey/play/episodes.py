"""Collections of whole episodes: a file for each while they are played, so that one that was stopped goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from sb3_permakey.files import atomic_array, locked_folder, read_json, require_writable, write_json
from sb3_permakey.frames.store import DESCRIPTION, FrameStore, FrameStoreError, write_store
from sb3_permakey.play.players import RANDOM
from sb3_permakey.settings import require_at_least, require_seed

COLLECTION = "collection.json"
Shares = tuple[float, float, float]
"""Parts of train, valid and test."""


class EpisodePlayer(Protocol):
    """Plays episodes, one after another; an episode's number decides everything in it."""

    frames: list[np.ndarray]
    """Frames of the present episode, uint8 (84, 84, C)."""

    def start(self, index: int) -> bool:
        """Begin an episode; False where its recordings are used up."""

    def step(self) -> bool:
        """Play one step; True when the episode is over."""


def require_sizes(frames: int, max_episode_steps: int, shares: Shares, seed: int) -> None:
    """Raise ValueError unless frames can be collected like that, and divided into train, valid and test."""
    require_at_least(1, frames=frames, max_episode_steps=max_episode_steps)
    require_seed(seed)
    if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"shares must be positive and sum to 1, not {shares}")


def collect_episodes(
    out: Path, frames: int, shares: Shares, origin: dict[str, Any], open_player: Callable[[], EpisodePlayer]
) -> FrameStore:
    """Play episodes until they hold the frames wanted, and store them; what was played before is not played again.

    :param out: folder to write
    :param frames: number of frames at least; whole episodes are kept
    :param shares: parts of train, valid and test
    :param origin: what determines the episodes: game, policy and preprocessing among it
    :param open_player: opens the player, where there is anything left to play
    :raises FrameStoreError: when the folder holds frames that were made with other settings, or too few
    :raises WriteError: when the folder cannot be written, or another collection is writing it
    """
    origin = json.loads(json.dumps(origin, default=str))
    if (out / DESCRIPTION).exists():
        return _finished(out, frames, origin)
    require_writable(out / DESCRIPTION)
    with locked_folder(out):
        if (out / DESCRIPTION).exists():  # by a collection that has ended meanwhile
            return _finished(out, frames, origin)
        collection, episodes = out / COLLECTION, out / "episodes"
        if collection.exists() and any(episodes.glob("[0-9]*.npy")):
            _require_same(out, read_json(collection), origin)
        player = open_player()
        write_json(collection, origin)
        lengths = _play_missing(player, frames, origin, episodes)
        store = write_store(out, StoredEpisodes(episodes, len(lengths)), shares, origin)
        shutil.rmtree(episodes)
        collection.unlink()
        return store


class StoredEpisodes(Sequence[np.ndarray]):
    """The first episodes of a folder, each memory-mapped for as long as it is held.

    Thousands at once are more open files than a process may have, and a file that is mapped cannot be removed on
    Windows.

    :param folder: where the episodes are
    :param count: number of episodes
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.number = folder, count

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self.number:
            raise IndexError(index)
        return np.load(_episode_path(self.folder, index), mmap_mode="r")


def _finished(out: Path, frames: int, origin: dict[str, Any]) -> FrameStore:
    """A store that was finished before, if it is what is wanted."""
    store = FrameStore(out)
    _require_same(out, store.description, origin)
    if sum(episode.length for episode in store.episodes) < frames:
        raise FrameStoreError(f"{out} is finished with fewer than {frames} frames; use another folder")
    return store


def _play_missing(player: EpisodePlayer, frames: int, origin: dict[str, Any], folder: Path) -> list[int]:
    """Play until the first episodes, without a gap, hold the frames wanted; their lengths."""
    folder.mkdir(parents=True, exist_ok=True)
    done = {int(path.stem): len(np.load(path, mmap_mode="r")) for path in folder.glob("[0-9]*.npy")}
    with tqdm(total=frames, unit="frame", desc=f"collecting {origin['game']}") as progress:
        while sum(lengths := _without_gap(done)) < frames:
            progress.update(sum(lengths) - progress.n)
            index = len(lengths)
            if not player.start(index):
                raise FrameStoreError(
                    f"the recordings of {' '.join(origin['policy'])} end after {sum(lengths)} frames; "
                    "collect no more than these, or give them a smaller share"
                )
            while not player.step():
                progress.update(progress.n < frames)
            _write_episode(_episode_path(folder, index), np.stack(player.frames))
            done[index] = len(player.frames)
    enough = next(count for count in range(1, len(lengths) + 1) if sum(lengths[:count]) >= frames)
    return lengths[:enough]


def _without_gap(done: dict[int, int]) -> list[int]:
    """Lengths of the episodes 0, 1, 2... up to the first that is missing."""
    lengths: list[int] = []
    while len(lengths) in done:
        lengths.append(done[len(lengths)])
    return lengths


def _write_episode(path: Path, frames: np.ndarray) -> None:
    with atomic_array(path, np.uint8, frames.shape) as array:
        array.append(frames)


def _episode_path(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.npy"


def _require_same(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    policy = found.get("policy")
    if not isinstance(policy, list):  # as it was written when there was one player: None or its file
        found = {**found, "policy": [policy or RANDOM]}
    for key, value in wanted.items():
        if found.get(key) != value:
            raise FrameStoreError(
                f"{path} holds frames made with {key} {found.get(key)}, not {value}; use another folder"
            )
