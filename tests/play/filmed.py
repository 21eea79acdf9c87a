"""Environments that show given images, for agents that look at frames."""

import cv2
import gymnasium as gym
import numpy as np
from gymnasium import spaces


class StillImage(gym.Env):
    """Shows one image for ever."""

    action_space = spaces.Discrete(9)

    def __init__(self, shape, dtype=np.uint8):
        self.observation_space = spaces.Box(0, 255, shape, dtype)

    def reset(self, *, seed=None, options=None):
        return self.observation_space.low, {}

    def step(self, action):
        return self.observation_space.low, 0.0, False, False, {}


class Film(gym.Env):
    """Shows given images one after another, through the ends of its episodes."""

    action_space = spaces.Discrete(9)

    def __init__(self, images, length):
        self.images, self.length = iter(images), length
        self.observation_space = spaces.Box(0, 255, images[0].shape, np.uint8)

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return next(self.images), {}

    def step(self, action):
        self.steps += 1
        over = self.steps == self.length
        return (self.observation_space.low if over else next(self.images)), 0.0, over, False, {}


def gray(frame):
    return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
