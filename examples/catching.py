"""An environment of one's own, for the command line: a ball falls, a bar is to catch it.

    sb3-permakey collect --env catching:Catching --frames 4000 --out frames

Its frames are small and twice as wide as high; docs/own_environment.md has the commands that follow.
"""

from typing import ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

HEIGHT, WIDTH, BALL, BAR = 48, 96, 6, 18


class Catching(gym.Env):
    """A ball falls from a random place, six pixels a step; caught by the bar it brings 1, else -1.

    Observations are the places of ball and bar; `render` gives frames uint8 (48, 96, 3).
    """

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = spaces.Box(0, WIDTH, (3,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        """Let a ball fall."""
        super().reset(seed=seed)
        self.row, self.column = 0, int(self.np_random.integers(WIDTH - BALL))
        self.bar = int(self.np_random.integers(WIDTH - BAR))
        return self._places(), {}

    def step(self, action):
        """Move the bar to the left (0), not (1) or to the right (2)."""
        self.bar = int(np.clip(self.bar + 12 * (int(action) - 1), 0, WIDTH - BAR))
        self.row += BALL
        is_down = self.row >= HEIGHT - BALL
        caught = self.bar - BALL < self.column < self.bar + BAR
        return self._places(), (1.0 if caught else -1.0) if is_down else 0.0, is_down, False, {}

    def render(self):
        """The frame, uint8 (48, 96, 3)."""
        frame = np.full((HEIGHT, WIDTH, 3), 30, np.uint8)
        frame[self.row : self.row + BALL, self.column : self.column + BALL] = (240, 200, 40)
        frame[HEIGHT - BALL :, self.bar : self.bar + BAR] = (60, 160, 240)
        return frame

    def _places(self):
        return np.array([self.row, self.column, self.bar], np.float32)


class Frames(gym.ObservationWrapper):
    """What `render` gives, as observations."""

    observation_space = spaces.Box(0, 255, (HEIGHT, WIDTH, 3), np.uint8)

    def observation(self, observation):
        """The frame."""
        return self.env.render()


def make_env():
    """The same environment, whose observations are its frames."""
    return Frames(Catching("rgb_array"))
