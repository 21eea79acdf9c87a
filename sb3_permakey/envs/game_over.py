"""Atari games that are over though the emulator does not say so: they end here all the same.

Frostbite's emulator ends a game when the last life drowns, but not when it freezes: it shows its title and a picture
that nothing moves until the limit of half an hour, in which an agent that has come to wait learns nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

FROSTBITE_STATE, FREEZES = 113, 0x10
"""A byte of Frostbite's RAM, and its bit while the player freezes: 50 steps later a life is lost.

The temperature, byte 101, does not tell it: it is counted down to 0 as well where the player enters the igloo.
"""


def _frostbite(ram: np.ndarray, lives: int) -> bool:
    return lives == 1 and bool(ram[FROSTBITE_STATE] & FREEZES)


OVER: dict[str, Callable[[np.ndarray, int], bool]] = {"Frostbite": _frostbite}
"""By a game's name: from its RAM, uint8 (128,), and its lives, the present one among them, whether it is over.

No other game of Atari-100k showed the like under constant and random actions, up to half an hour each: where a game did
not end, its player stood still and could have gone on.
"""


class EndWhenOver(gym.Wrapper):
    """Ends a game where it is over, as the emulator's own ends are: terminated, with no lives left.

    :param env: an Atari game
    :param over: from RAM and lives, whether it is over
    """

    def __init__(self, env: gym.Env, over: Callable[[np.ndarray, int], bool]) -> None:
        super().__init__(env)
        self.over = over

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the game."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        ale = self.unwrapped.ale  # type: ignore[attr-defined]
        if not terminated and self.over(ale.getRAM(), ale.lives()):
            terminated, info = True, {**info, "lives": 0}
        return observation, reward, terminated, truncated, info
