"""A window that shows an environment while it is played."""

from __future__ import annotations

import os
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import HumanRendering

from sb3_permakey.envs.own import PICTURES
from sb3_permakey.extras import missing_package

HEIGHT_PX = 480
"""About the height of the window; pictures are enlarged by a whole number."""
UNSEEN = ("offscreen", "dummy")
"""Drivers that SDL takes where there is no display."""


class WindowError(ValueError):
    """A window that cannot be opened, or that has nothing to show."""


class Enlarged(gym.Wrapper):
    """Renders each pixel as a square of several."""

    def render(self) -> Any:
        """The picture, uint8 (H, W, 3)."""
        picture: Any = self.env.render()
        times = max(1, round(HEIGHT_PX / len(picture)))
        return np.repeat(np.repeat(picture, times, axis=0), times, axis=1)


def in_window(env: gym.Env, name: str, frames_per_second: float) -> gym.Env:
    """The environment, which shows each step in a window, no faster than it would be played.

    :param env: an environment that renders pictures
    :param name: of the environment
    :param frames_per_second: how fast it is played where it does not say so itself
    :raises ImportError: when pygame is not installed
    :raises WindowError: when the environment renders no pictures, or there is no display
    """
    if env.render_mode != PICTURES:
        raise WindowError(f"{name} cannot be shown: its render_mode is {env.render_mode!r}, not {PICTURES!r}")
    try:
        import pygame
    except ImportError as error:
        raise missing_package("A window needs pygame", "window") from error
    try:
        pygame.display.init()
        driver = pygame.display.get_driver()
    except pygame.error as error:
        raise WindowError(f"no window can be opened: {error}") from error
    if driver in UNSEEN and os.environ.get("SDL_VIDEODRIVER") != driver:
        raise WindowError("no window can be opened: there is no display; a video can be written instead")
    env = Enlarged(env)
    env.metadata = {"render_modes": [PICTURES], "render_fps": frames_per_second, **env.metadata}
    return HumanRendering(env)
