"""Wrappers come in two kinds, for one environment of gymnasium and for SB3's vectorised ones; each says which it is."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from stable_baselines3.common.vec_env import VecEnv


def require_environment(env: Any, wrapper: str, other: str = "") -> None:
    """Raise ValueError unless the environment is one of gymnasium's.

    :param env: what shall be wrapped
    :param wrapper: the wrapper's name
    :param other: the name of its twin for vectorised environments; "" where it has none
    """
    if isinstance(env, VecEnv):
        remedy = f"use {other} around it" if other else "wrap each environment before they are vectorised"
        raise ValueError(f"{wrapper} wraps one environment, got the vectorised {type(env).__name__}: {remedy}.")
    if not isinstance(env, gym.Env):
        raise ValueError(f"{wrapper} wraps an environment of gymnasium, got {env!r}.")


def require_vectorised(venv: Any, wrapper: str, other: str) -> None:
    """Raise ValueError unless the environments are vectorised by SB3's interface.

    :param venv: what shall be wrapped
    :param wrapper: the wrapper's name
    :param other: the name of its twin for one environment
    """
    if not isinstance(venv, VecEnv):
        raise ValueError(
            f"{wrapper} wraps vectorised environments of Stable-Baselines3, got {venv!r}: use {other}, or "
            "DummyVecEnv([lambda: env]) first."
        )


def require_rendering(env: gym.Env | VecEnv, setting: str) -> None:
    """Raise ValueError unless the environment renders something.

    :param env: what shall be drawn on
    :param setting: the setting that draws
    """
    if env.render_mode is None:
        raise ValueError(
            f"{setting} draws on what the environment renders, and this one renders nothing: make it with "
            'render_mode="rgb_array"'
        )
