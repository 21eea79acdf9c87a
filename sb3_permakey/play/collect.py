"""Collecting frames: episode after episode, each determined by the seed and its number."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import numpy as np

from sb3_permakey.envs.atari import PREPROCESSING
from sb3_permakey.envs.distractors import DistractorKind, check_kind, draw_bars, places_by_index
from sb3_permakey.envs.named import NamedEnvironment
from sb3_permakey.frames.store import FrameStore
from sb3_permakey.play.episodes import collect_episodes, require_sizes
from sb3_permakey.play.players import (
    MINARI,
    RANDOM,
    EpisodeActions,
    MinariRecordings,
    Roster,
    parse_sources,
    require_agents,
)
from sb3_permakey.settings import NO_DEFAULT, require_one, require_range


@dataclass(frozen=True)
class CollectConfig:
    """Collect frames of an Atari game, or of an environment of your own, for pretraining."""

    game: Annotated[str | None, NO_DEFAULT] = None
    """Game, e.g. MsPacman."""
    env: Annotated[str | None, NO_DEFAULT] = None
    """Instead of a game your own environment, module:function, or an id of gymnasium's.
    Its frames, or what it renders, are resized whole to 84x84."""
    out: Path = field(kw_only=True)
    """Folder to write the frames to."""
    frames: int = 95_000
    """Frames to collect at least; whole episodes are kept (paper: 85,000 + 5,000 + 5,000)."""
    policy: tuple[str, ...] = (RANDOM,)
    """Players, each SOURCE or SOURCE=SHARE with its share of the episodes (not of the frames): "random", actions that
    last 1 to 8 steps; the file of a saved SB3 model; a repository of RL Zoo on the Hugging Face hub, e.g.
    sb3/dqn-MsPacmanNoFrameskip-v4; or minari:DATASET, e.g. minari:atari/mspacman/expert-v0."""
    checkpoint: Annotated[Path | None, NO_DEFAULT] = None
    """Keypoint checkpoint, for a model that sees keypoints; the package's own are found without."""
    epsilon: float = 0.1
    """Probability of a random action beside a model's."""
    distractor: Annotated[DistractorKind | None, NO_DEFAULT] = None
    """Bars of noisy Atari, drawn on the frames for good (pretraining can also draw them on clean frames)."""
    max_episode_steps: int = 4_500
    """An episode is cut after this many steps."""
    shares: tuple[float, float, float] = (0.9, 0.05, 0.05)
    """Parts of train, valid and test; an episode is never divided."""
    seed: int = 0
    """Seed of the whole collection."""

    def __post_init__(self) -> None:
        require_one(game=self.game, env=self.env)
        require_sizes(self.frames, self.max_episode_steps, self.shares, self.seed)
        require_range(0, 1, epsilon=self.epsilon)
        if self.epsilon != type(self).epsilon:
            require_agents("epsilon", self.policy)
        sources = parse_sources(self.policy)
        if self.env is not None and any(source.name.startswith(MINARI) for source in sources):
            raise ValueError("recordings are of Atari games, not of an env")
        if self.distractor is not None:
            check_kind(self.distractor)

    @property
    def environment(self) -> NamedEnvironment:
        """What is played."""
        return NamedEnvironment(self.game, self.env)

    def origin(self) -> dict[str, Any]:
        """What determines the episodes, for frames.json."""
        settings = asdict(self)
        for name in ("out", "frames", "shares"):
            del settings[name]
        return {
            **settings,
            "game": self.environment.id,
            "policy": list(self.policy),
            "checkpoint": str(self.checkpoint) if self.checkpoint else None,
            "preprocessing": PREPROCESSING if self.env is None else None,
        }


class Player:
    """Plays episodes, one after another; an episode's number and the seed decide everything in it.

    Games are played one by one: in a batch of several, its size would change the rounding of an agent's values.

    :param config: the collection's settings
    :param roster: who plays which episode
    :param env: what is played
    """

    def __init__(self, config: CollectConfig, roster: Roster, env: gym.Env) -> None:
        self.config, self.roster, self.env = config, roster, env

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
        frame, self.info = self.env.reset(seed=int(self.random.integers(2**31)))
        # Some environments give the same array at each step.
        self.frames = [np.array(frame)]
        self.actions = EpisodeActions(player, self.env.action_space, self.config.epsilon, self.random)
        return True

    def step(self) -> bool:
        """Play one step; True when the episode is over."""
        if self.recorded is not None:
            self.frames.append(self.recorded[len(self.frames)])
            return len(self.frames) == len(self.recorded)
        action = self.actions.next(self.frames[-1], self.info)
        frame, reward, terminated, truncated, self.info = self.env.step(action)
        self.actions.note(float(reward))
        self.frames.append(np.array(frame))
        return terminated or truncated or len(self.frames) >= self.config.max_episode_steps

    def _recorded(self, recordings: MinariRecordings, number: int) -> np.ndarray:
        frames = recordings.frames(number, max(self.config.max_episode_steps, 2))
        if self.config.distractor is None:
            return frames
        places = places_by_index(self.config.distractor, np.arange(len(frames)), (self.config.seed, self.index))
        return draw_bars(frames, places)


def _make_env(config: CollectConfig) -> gym.Env:
    return config.environment.make(training=False, distractor=config.distractor)


def collect(config: CollectConfig) -> FrameStore:
    """Collect frames; a collection that was stopped goes on with its first unfinished episode.

    :param config: the collection's settings
    :raises OwnEnvironmentError: when there is no such environment, or it has no frames
    :raises FrameStoreError: when the folder holds frames that were made with other settings
    :raises WriteError: when the folder cannot be written, or another collection is writing it
    """

    with ExitStack() as opened:

        def open_player() -> Player:
            env = opened.enter_context(closing(_make_env(config)))
            sources = parse_sources(config.policy)
            roster = Roster(sources, config.environment, env.action_space, config.checkpoint, config.seed)
            return Player(config, roster, env)

        return collect_episodes(config.out, config.frames, config.shares, config.origin(), open_player)
