"""Environments of one's own by name, seen as the frames that keypoints are read from, uint8 (84, 84, 3).

A name is `module:function`, or the id of an environment that gymnasium knows. What the environment shows is:

- its observations, where they are frames uint8 (H, W, 3), or gray (H, W, 1) or (H, W);
- else what it renders, where its `render_mode` is "rgb_array": of an id that can render it is, and a function gets it
  where it has an argument of that name.

Frames of another size are resized whole, whatever their aspect, each pixel the mean of the area that it covers; nothing
is cropped. Gray ones are repeated to three channels.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator
from gymnasium.wrappers import AddRenderObservation, TimeLimit
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from sb3_permakey.envs.distractors import DistractorBars, DistractorKind
from sb3_permakey.envs.resizing import ResizeFrames, resized_space

MOST_STEPS = 27_000
"""Agent steps after which an episode that does not end is cut, as the emulator does with Atari's."""
PICTURES: Literal["rgb_array"] = "rgb_array"
"""The render mode that gives pictures."""


class OwnEnvironmentError(ValueError):
    """A name that no environment has, or one of an environment that has no frames."""


def make_own_env(
    name: str, *, seed: int | None = None, distractor: DistractorKind | None = None, max_steps: int | None = None
) -> gym.Env:
    """An environment of one's own with frames uint8 (84, 84, 3) as observations, made as this module says.

    SB3's Monitor counts its episodes. Rewards are its own.

    :param name: "module:function", the module in the present folder or installed, the function one that returns a
        gymnasium.Env (a class of environments is such a function too); or an id of gymnasium's, "CartPole-v1"
    :param seed: seed of the first reset and of the action space
    :param distractor: bars drawn on the frames: "horizontal", "vertical" or "both"; None: none
    :param max_steps: agent steps after which an episode is cut; None: 27,000
    :raises OwnEnvironmentError: when there is no such module, function or id, when the function returns something
        else, or the environment has no frames
    :raises ImportError: when frames are to be resized and OpenCV is not installed
    """
    env: gym.Env = TimeLimit(_with_frames(_made(name), name), max_steps or MOST_STEPS)
    if distractor is not None:
        env = DistractorBars(env, distractor)
    env = Monitor(env)
    if seed is not None:
        env.reset(seed=seed)
        env.action_space.seed(seed)
    return env


def require_discrete_actions(space: spaces.Space, name: str) -> spaces.Discrete:
    """The action space, where agents can choose among its actions.

    :param space: of the environment
    :param name: of the environment
    :raises OwnEnvironmentError: for continuous actions, or any but Discrete ones that count from 0
    """
    if not isinstance(space, spaces.Discrete) or space.start != 0:
        kind = "continuous actions" if isinstance(space, spaces.Box) else "actions"
        raise OwnEnvironmentError(f"{name} has {kind} {space}: agents choose among Discrete ones, counted from 0")
    return space


def _made(name: str) -> gym.Env:
    """The environment as it comes."""
    module, colon, rest = name.partition(":")
    if not colon:
        return _of_id(name)
    imported = _imported(module, name)
    # gymnasium has "module:id" too, for a module that registers the id.
    return _by_function(imported, rest, name) if rest.replace(".", "").isidentifier() else _of_id(rest)


def _of_id(name: str) -> gym.Env:
    """An environment that gymnasium knows."""
    try:
        spec = gym.spec(name)
    except gym.error.Error:
        raise OwnEnvironmentError(_unknown(name)) from None
    if name.startswith("ALE/") or str(spec.entry_point).startswith("ale_py"):
        raise OwnEnvironmentError(f"{name} is an Atari game: give it as the game, not as an env")
    creator = spec.entry_point if callable(spec.entry_point) else load_env_creator(str(spec.entry_point))
    renders = PICTURES in getattr(creator, "metadata", {}).get("render_modes", ())
    return _called(lambda: gym.make(name, render_mode=PICTURES if renders else None), name)


def _unknown(name: str) -> str:
    """The sentence about an id that gymnasium does not know."""
    if name.startswith("ALE/"):
        return f"{name} is an Atari game: give it as the game, not as an env"
    nearest = difflib.get_close_matches(name, gym.registry, n=1)
    hint = f"the nearest name is {nearest[0]!r}; " if nearest else ""
    return f"gymnasium knows no environment {name!r}: {hint}one of your own is named module:function"


def _by_function(module: ModuleType, path: str, name: str) -> gym.Env:
    """What a function of a module returns."""
    try:
        function = attrgetter(path)(module)
    except AttributeError:
        nearest = difflib.get_close_matches(path, vars(module), n=1)
        hint = f"; the nearest name is {nearest[0]!r}" if nearest else ""
        raise OwnEnvironmentError(f"the module {module.__name__} has no function {path!r}{hint}") from None
    if not callable(function):
        kind = type(function).__name__
        raise OwnEnvironmentError(f"{name} is no function but a {kind}: name one that returns a gymnasium.Env")
    env = _called(lambda: function(**({"render_mode": PICTURES} if _takes_render_mode(function) else {})), name)
    if isinstance(env, VecEnv | gym.vector.VectorEnv):
        raise OwnEnvironmentError(f"{name} returns vectorised environments ({type(env).__name__}), not a single one")
    if not isinstance(env, gym.Env):
        raise OwnEnvironmentError(f"{name} returns a {type(env).__name__}, not a gymnasium.Env")
    return env


def _takes_render_mode(function: Callable[..., Any]) -> bool:
    try:
        return "render_mode" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # of some that are not written in Python
        return False


def _imported(module: str, name: str) -> ModuleType:
    """A module of the present folder or an installed one, as `python -m` finds it."""
    if not all(part.isidentifier() for part in module.split(".")):
        raise OwnEnvironmentError(f"{name} names no module: it is written with dots and without .py, package.module")
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise OwnEnvironmentError(
                f"there is no module {error.name!r}, in the present folder or installed, for {name}"
            ) from None
        raise OwnEnvironmentError(f"the module {module} could not be imported: {_told(error)}") from error
    except Exception as error:
        raise OwnEnvironmentError(f"the module {module} could not be imported: {_told(error)}") from error


def _called(make: Callable[[], Any], name: str) -> Any:
    try:
        return make()
    except Exception as error:
        raise OwnEnvironmentError(f"{name} could not be made: {_told(error)}") from error


def _told(error: Exception) -> str:
    """An error of somebody else's code in one line, with the place where it was raised."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text} ({Path(place.filename).name}, line {place.lineno})"


def _with_frames(env: gym.Env, name: str) -> gym.Env:
    """The environment with frames uint8 (84, 84, 3) as observations."""
    if not _has_frames(env.observation_space):
        if env.render_mode != PICTURES:
            raise OwnEnvironmentError(
                f"{name} shows no image: its observations are {env.observation_space}, not Box uint8 (H, W, 3) or "
                f"gray, and its render_mode is {env.render_mode!r}, not {PICTURES!r}"
            )
        env = _rendered(env, name)
    return ResizeFrames(env, repeat_gray=True)


def _rendered(env: gym.Env, name: str) -> gym.Env:
    """The environment with its pictures as observations."""
    pictures: gym.Env = _called(lambda: AddRenderObservation(env), name)
    picture = env.render()
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or not _has_frames(pictures.observation_space):
        found = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise OwnEnvironmentError(f"{name} renders {found}, not pictures uint8 (H, W, 3)")
    return pictures


def _has_frames(space: spaces.Space) -> bool:
    try:
        resized_space(space, repeat_gray=True)
    except ValueError:
        return False
    return True
