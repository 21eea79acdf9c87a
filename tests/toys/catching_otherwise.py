"""The environment of examples/catching.py with other frames and actions."""

import gymnasium as gym
from catching import HEIGHT, WIDTH, Catching, make_env
from gymnasium import spaces


def make_gray():
    """Observations are gray frames."""
    return gym.wrappers.TransformObservation(
        make_env(), lambda frame: frame[..., 0], spaces.Box(0, 255, (HEIGHT, WIDTH), "uint8")
    )


def make_continuous(render_mode=None):
    """The bar is steered by a number."""
    env = Catching(render_mode)
    return gym.wrappers.TransformAction(env, lambda action: round(1 + float(action[0])), spaces.Box(-1, 1, (1,)))
