"""Frames of environments of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_permakey.envs.keypoints import require_frames
from sb3_permakey.frames.store import FrameStore
from sb3_permakey.play.episodes import Shares, collect_episodes, require_sizes
from sb3_permakey.play.players import RANDOM, RepeatedActions


def record_frames(
    env: gym.Env,
    out: str | Path,
    *,
    frames: int = 95_000,
    policy: Callable[[np.ndarray], Any] | None = None,
    max_episode_steps: int = 4_500,
    shares: Shares = (0.9, 0.05, 0.05),
    seed: int = 0,
) -> FrameStore:
    """Record frames of any environment for pretraining, as `sb3-permakey collect` does with Atari games.

    A recording that was stopped goes on with its first unfinished episode; one that is whole is not made again.

        record_frames(env, "frames")
        pretrain(PretrainConfig(frames=Path("frames"), out=Path("mine.safetensors")))
        PermaKeyObservation(env, "mine.safetensors")

    :param env: an environment with uint8 observations (84, 84, 3), the same that agents will see
    :param out: folder to write
    :param frames: number of frames at least; whole episodes are kept, three or more
    :param policy: gives the action for a frame; None: random actions, each of which lasts 1 to 8 steps
    :param max_episode_steps: an episode is cut after this many frames
    :param shares: parts of train, valid and test; an episode is never divided
    :param seed: of environment and random actions
    :raises ValueError: when the environment has other observations, or a number makes no sense
    :raises FrameStoreError: when the folder holds frames that were made with other settings, or there are too few
        episodes
    :raises WriteError: when the folder cannot be written, or another recording is writing it
    """
    require_frames(env.observation_space)
    require_sizes(frames, max_episode_steps, shares, seed)
    origin = {
        "game": env.spec.id if env.spec else type(env.unwrapped).__name__,
        "policy": [getattr(policy, "__name__", type(policy).__name__) if policy else RANDOM],
        "max_episode_steps": max_episode_steps,
        "seed": seed,
        "preprocessing": None,
    }
    return collect_episodes(Path(out), frames, shares, origin, lambda: _Player(env, policy, max_episode_steps, seed))


class _Player:
    """Plays episodes of an environment; an episode's number and the seed decide everything in it.

    :param env: the environment
    :param policy: gives the action for a frame; None: random ones
    :param max_episode_steps: an episode is cut after this many frames
    :param seed: of the recording
    """

    def __init__(
        self, env: gym.Env, policy: Callable[[np.ndarray], Any] | None, max_episode_steps: int, seed: int
    ) -> None:
        self.env, self.policy, self.max_episode_steps, self.seed = env, policy, max_episode_steps, seed
        self.frames: list[np.ndarray] = []

    def start(self, index: int) -> bool:
        """Begin an episode."""
        random = np.random.default_rng((self.seed, index))
        self.env.action_space.seed(int(random.integers(2**31)))
        self.actions = RepeatedActions(self.env.action_space.sample, random)
        frame, _ = self.env.reset(seed=int(random.integers(2**31)))
        self.frames = [np.array(frame)]
        return True

    def step(self) -> bool:
        """Play one step; True when the episode is over."""
        action = self.policy(self.frames[-1]) if self.policy else self.actions.next()
        frame, _, terminated, truncated, _ = self.env.step(action)
        self.frames.append(np.array(frame))
        return terminated or truncated or len(self.frames) >= self.max_episode_steps
