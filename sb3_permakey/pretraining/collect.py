"""Collecting Atari frames: episode after episode, each determined by the seed and its number."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from sb3_permakey.atari import PREPROCESSING, atari_env_id, make_atari_env
from sb3_permakey.distractors import DistractorKind, check_kind, draw_bars, places_by_index
from sb3_permakey.files import atomic_array, write_json
from sb3_permakey.pretraining.frames import DESCRIPTION, FrameStore, FrameStoreError, write_store
from sb3_permakey.pretraining.players import RANDOM, EpisodeActions, MinariRecordings, Roster, parse_sources

COLLECTION = "collection.json"


@dataclass(frozen=True)
class CollectConfig:
    """Collect frames of an Atari game for pretraining."""

    game: str
    """Game, e.g. MsPacman."""
    out: Path
    """Folder to write the frames to."""
    frames: int = 95_000
    """Frames to collect at least; whole episodes are kept (paper: 85,000 + 5,000 + 5,000)."""
    policy: tuple[str, ...] = (RANDOM,)
    """Players, each SOURCE or SOURCE=SHARE with its share of the episodes (not of the frames): "random", actions that
    last 1 to 8 steps; the file of a saved SB3 model; a repository of RL Zoo on the Hugging Face hub, e.g.
    sb3/dqn-MsPacmanNoFrameskip-v4; or minari:DATASET, e.g. minari:atari/mspacman/expert-v0."""
    checkpoint: Path | None = None
    """Keypoint checkpoint, for a model that sees keypoints."""
    epsilon: float = 0.1
    """Probability of a random action beside a model's."""
    distractor: DistractorKind | None = None
    """Bars of noisy Atari, drawn on the frames for good (pretraining can also draw them on clean frames)."""
    max_episode_steps: int = 4_500
    """An episode is cut after this many steps."""
    shares: tuple[float, float, float] = (0.9, 0.05, 0.05)
    """Parts of train, valid and test; an episode is never divided."""
    seed: int = 0
    """Seed of the whole collection."""

    def __post_init__(self) -> None:
        for name in ("frames", "max_episode_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.epsilon <= 1:
            raise ValueError(f"epsilon must be from 0 to 1, not {self.epsilon}")
        parse_sources(self.policy)
        if self.distractor is not None:
            check_kind(self.distractor)
        if min(self.shares) <= 0 or abs(sum(self.shares) - 1) > 1e-6:
            raise ValueError(f"shares must be positive and sum to 1, not {self.shares}")

    def provenance(self) -> dict[str, Any]:
        """What determines the episodes, for frames.json."""
        settings = asdict(self)
        for name in ("out", "frames", "shares"):
            del settings[name]
        return {
            **settings,
            "game": atari_env_id(self.game),
            "policy": list(self.policy),
            "checkpoint": str(self.checkpoint) if self.checkpoint else None,
            "preprocessing": PREPROCESSING,
        }


class Player:
    """Plays episodes of a game, one after another; an episode's number and the seed decide everything in it.

    Games are played one by one: in a batch of several, its size would change the rounding of an agent's values.

    :param config: the collection's settings
    :param roster: who plays which episode
    """

    def __init__(self, config: CollectConfig, roster: Roster) -> None:
        self.config, self.roster = config, roster
        self.env = _make_env(config)

    def start(self, index: int) -> bool:
        """Begin an episode; False where its recordings are used up."""
        self.index = index
        self.random = np.random.default_rng((self.config.seed, index))
        player = self.roster.player(index)
        self.recorded: np.ndarray | None = None
        if isinstance(player, MinariRecordings):
            number = self.roster.recording(index)
            if number is None:
                return False
            self.recorded = self._recorded(player, number)
            self.frames = [self.recorded[0]]
            return True
        frame, _ = self.env.reset(seed=int(self.random.integers(2**31)))
        self.frames = [frame]
        self.actions = EpisodeActions(player, self.env.action_space, self.config.epsilon, self.random)
        return True

    def step(self) -> bool:
        """Play one step; True when the episode is over."""
        if self.recorded is not None:
            self.frames.append(self.recorded[len(self.frames)])
            return len(self.frames) == len(self.recorded)
        frame, _, terminated, truncated, _ = self.env.step(self.actions.next(self.frames[-1]))
        self.frames.append(frame)
        return terminated or truncated or len(self.frames) >= self.config.max_episode_steps

    def _recorded(self, recordings: MinariRecordings, number: int) -> np.ndarray:
        frames = recordings.frames(number, max(self.config.max_episode_steps, 2))
        if self.config.distractor is None:
            return frames
        places = places_by_index(self.config.distractor, np.arange(len(frames)), (self.config.seed, self.index))
        return draw_bars(frames, places)


def _make_env(config: CollectConfig) -> gym.Env:
    return make_atari_env(config.game, training=False, distractor=config.distractor)


def collect(config: CollectConfig) -> FrameStore:
    """Collect frames; a collection that was stopped goes on with its first unfinished episode.

    :param config: the collection's settings
    :raises FrameStoreError: when the folder holds frames that were made with other settings
    """
    provenance = json.loads(json.dumps(config.provenance(), default=str))
    if (config.out / DESCRIPTION).exists():
        store = FrameStore(config.out)
        _require_same(config.out, store.description, provenance)
        if sum(episode.length for episode in store.episodes) < config.frames:
            raise FrameStoreError(
                f"{config.out} is finished with fewer than {config.frames} frames; use another folder"
            )
        return store
    collection = config.out / COLLECTION
    if collection.exists():
        _require_same(config.out, json.loads(collection.read_text()), provenance)
    actions = _make_env(config).action_space
    roster = Roster(parse_sources(config.policy), config.game, actions, config.checkpoint, config.seed)
    write_json(collection, provenance)
    episodes = config.out / "episodes"
    lengths = _play_missing(config, roster, episodes)
    kept = [np.load(_episode_path(episodes, index), mmap_mode="r") for index in range(len(lengths))]
    store = write_store(config.out, kept, config.shares, provenance)
    shutil.rmtree(episodes)
    collection.unlink()
    return store


def _play_missing(config: CollectConfig, roster: Roster, folder: Path) -> list[int]:
    """Play until the first episodes, without a gap, hold the frames wanted; their lengths."""
    folder.mkdir(parents=True, exist_ok=True)
    done = {int(path.stem): len(np.load(path, mmap_mode="r")) for path in folder.glob("[0-9]*.npy")}
    player = Player(config, roster)
    with tqdm(total=config.frames, unit="frame", desc=f"collecting {config.game}") as progress:
        while sum(lengths := _without_gap(done)) < config.frames:
            progress.update(sum(lengths) - progress.n)
            index = len(lengths)
            if not player.start(index):
                raise FrameStoreError(
                    f"the recordings of {' '.join(config.policy)} end after {sum(lengths)} frames; "
                    "collect no more than these, or give them a smaller share"
                )
            while not player.step():
                progress.update(progress.n < config.frames)
            _write_episode(_episode_path(folder, index), np.stack(player.frames))
            done[index] = len(player.frames)
    enough = next(count for count in range(1, len(lengths) + 1) if sum(lengths[:count]) >= config.frames)
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
