"""Collecting Atari frames: episode after episode, each determined by the seed and its number."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sb3_permakey.atari import PREPROCESSING, atari_env_id, make_atari_env
from sb3_permakey.files import atomic_array, write_json
from sb3_permakey.pretraining.frames import DESCRIPTION, FrameStore, FrameStoreError, write_store
from sb3_permakey.saved_agents import FrameAgent

COLLECTION = "collection.json"
LONGEST_REPEAT = 8
"""Actions of the random policy last 1 to this many steps."""


@dataclass(frozen=True)
class CollectConfig:
    """Collect frames of an Atari game for pretraining."""

    game: str
    """Game, e.g. MsPacman."""
    out: Path
    """Folder to write the frames to."""
    frames: int = 95_000
    """Frames to collect at least; whole episodes are kept (paper: 85,000 + 5,000 + 5,000)."""
    policy: Path | None = None
    """A saved SB3 model that plays; without it actions are random and last 1 to 8 steps."""
    checkpoint: Path | None = None
    """Keypoint checkpoint, for a policy that sees keypoints."""
    epsilon: float = 0.1
    """Probability of a random action beside the policy's."""
    num_envs: int = 4
    """Environments played at once."""
    max_episode_steps: int = 4_500
    """An episode is cut after this many steps."""
    shares: tuple[float, float, float] = (0.9, 0.05, 0.05)
    """Parts of train, valid and test; an episode is never divided."""
    seed: int = 0
    """Seed of the whole collection."""

    def __post_init__(self) -> None:
        for name in ("frames", "num_envs", "max_episode_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.epsilon <= 1:
            raise ValueError(f"epsilon must be from 0 to 1, not {self.epsilon}")
        if min(self.shares) <= 0 or abs(sum(self.shares) - 1) > 1e-6:
            raise ValueError(f"shares must be positive and sum to 1, not {self.shares}")

    def provenance(self) -> dict[str, Any]:
        """What determines the episodes, for frames.json; the number of environments does not."""
        settings = asdict(self)
        for name in ("out", "num_envs", "frames", "shares"):
            del settings[name]
        return {
            **settings,
            "game": atari_env_id(self.game),
            "policy": str(self.policy) if self.policy else None,
            "checkpoint": str(self.checkpoint) if self.checkpoint else None,
            "preprocessing": PREPROCESSING,
        }


class Player:
    """Plays episodes of a game, one after another; an episode's number and the seed decide everything in it.

    :param config: the collection's settings
    """

    def __init__(self, config: CollectConfig) -> None:
        self.config = config
        self.env = make_atari_env(config.game, training=False)

    def start(self, index: int) -> None:
        """Reset to the beginning of an episode."""
        self.index = index
        self.random = np.random.default_rng((self.config.seed, index))
        frame, _ = self.env.reset(seed=int(self.random.integers(2**31)))
        self.frames = [frame]
        self.repeated_action, self.repeats_left = 0, 0

    def step(self, policy_action: int | None) -> bool:
        """Play the policy's action, or a random one; True when the episode is over."""
        frame, _, terminated, truncated, _ = self.env.step(self._choose(policy_action))
        self.frames.append(frame)
        return terminated or truncated or len(self.frames) >= self.config.max_episode_steps

    def _choose(self, policy_action: int | None) -> int:
        if policy_action is not None:
            return self._random_action() if self.random.random() < self.config.epsilon else policy_action
        if self.repeats_left == 0:
            self.repeated_action = self._random_action()
            self.repeats_left = int(self.random.integers(1, LONGEST_REPEAT + 1))
        self.repeats_left -= 1
        return self.repeated_action

    def _random_action(self) -> int:
        return int(self.random.integers(self.env.action_space.n))  # type: ignore[attr-defined]


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
    else:
        write_json(collection, provenance)
    episodes = config.out / "episodes"
    lengths = _play_missing(config, episodes)
    kept = [np.load(_episode_path(episodes, index), mmap_mode="r") for index in range(len(lengths))]
    store = write_store(config.out, kept, config.shares, provenance)
    shutil.rmtree(episodes)
    collection.unlink()
    return store


def _play_missing(config: CollectConfig, folder: Path) -> list[int]:
    """Play until the first episodes, without a gap, hold the frames wanted; their lengths."""
    folder.mkdir(parents=True, exist_ok=True)
    done = {int(path.stem): len(np.load(path, mmap_mode="r")) for path in folder.glob("[0-9]*.npy")}
    agent = FrameAgent(config.policy, config.checkpoint) if config.policy else None
    with tqdm(total=config.frames, unit="frame", desc=f"collecting {config.game}") as progress:
        progress.update(min(sum(_without_gap(done)), config.frames))
        if sum(_without_gap(done)) < config.frames:
            players = [Player(config) for _ in range(config.num_envs)]
            next_index = 0
            for player in players:
                next_index = _start_next(player, next_index, done)
        while sum(_without_gap(done)) < config.frames:
            actions = _policy_actions(agent, players) if agent else [None] * len(players)
            for player, action in zip(players, actions, strict=True):
                if player.step(action):
                    _write_episode(_episode_path(folder, player.index), np.stack(player.frames))
                    done[player.index] = len(player.frames)
                    next_index = _start_next(player, next_index, done)
            progress.update(min(len(players), config.frames - progress.n))
    lengths = _without_gap(done)
    enough = next(count for count in range(1, len(lengths) + 1) if sum(lengths[:count]) >= config.frames)
    return lengths[:enough]


def _policy_actions(agent: FrameAgent, players: list[Player]) -> list[int | None]:
    starts = np.array([len(player.frames) == 1 for player in players])
    return agent.act(np.stack([player.frames[-1] for player in players]), starts).tolist()


def _start_next(player: Player, index: int, done: dict[int, int]) -> int:
    """Start the first episode from `index` on that is not done; the index after it."""
    while index in done:
        index += 1
    player.start(index)
    return index + 1


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
    for key, value in wanted.items():
        if found.get(key) != value:
            raise FrameStoreError(
                f"{path} holds frames made with {key} {found.get(key)}, not {value}; use another folder"
            )
