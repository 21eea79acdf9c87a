"""Frames of games under random actions."""

from __future__ import annotations

from contextlib import closing

import numpy as np

from sb3_permakey import make_atari_env


def played_frames(game: str, count: int, seed: int) -> np.ndarray:
    """The first frames of random play, uint8 (count, 84, 84, 3); a new game begins where one ends."""
    with closing(make_atari_env(game, seed=seed)) as env:
        frames = [env.reset()[0]]
        while len(frames) < count:
            frame, _, terminated, truncated, _ = env.step(env.action_space.sample())
            frames.append(env.reset()[0] if terminated or truncated else frame)
    return np.stack(frames)
