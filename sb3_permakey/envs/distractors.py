"""Noisy Atari (section 5): coloured bars that jump to a new place in every frame."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import gymnasium as gym
import numpy as np

from sb3_permakey.envs.wrapping import require_environment
from sb3_permakey.settings import require_choice

BAR_WIDTH_PX = 5
BAR_COLOR = (128, 0, 255)
"""RGB."""
DistractorKind = Literal["horizontal", "vertical", "both"]
INFO_KEY = "distractor_bars"
NO_BAR = -1


class BarPlaces(NamedTuple):
    """Where the bars of B frames are."""

    tops: np.ndarray
    """int (B,), first row of the horizontal bar, or -1 without one."""
    lefts: np.ndarray
    """int (B,), first column of the vertical bar, or -1 without one."""


def check_kind(kind: str) -> None:
    """Raise ValueError unless the kind is one of the paper's."""
    require_choice(get_args(DistractorKind), distractor=kind)


def random_places(kind: DistractorKind, height: int, width: int, random: np.random.Generator) -> BarPlaces:
    """Uniform places of one frame's bars; each bar lies wholly inside the frame.

    Both places are drawn whatever the kind, so that a seed puts the bars of "both" where it puts each alone.
    """
    top = int(random.integers(height - BAR_WIDTH_PX + 1))
    left = int(random.integers(width - BAR_WIDTH_PX + 1))
    return BarPlaces(
        np.array([top if kind in ("horizontal", "both") else NO_BAR]),
        np.array([left if kind in ("vertical", "both") else NO_BAR]),
    )


def places_by_index(
    kind: DistractorKind, indices: np.ndarray, seed: tuple[int, ...], height: int = 84, width: int = 84
) -> BarPlaces:
    """Places for stored frames: seed and index alone decide them.

    :param kind: which bars
    :param indices: (B,), numbers of the frames in their data set
    :param seed: seed of the data set's bars
    :param height: of the frames, in pixels
    :param width: of the frames, in pixels
    """
    check_kind(kind)
    places = [random_places(kind, height, width, np.random.default_rng((*seed, int(index)))) for index in indices]
    return BarPlaces(*(np.concatenate(parts) for parts in zip(*places, strict=True)))


def draw_bars(frames: np.ndarray, places: BarPlaces) -> np.ndarray:
    """A copy of the frames uint8 (B, H, W, 3) with their bars."""
    frames = np.array(frames)
    for frame, top, left in zip(frames, *places, strict=True):
        if top != NO_BAR:
            frame[top : top + BAR_WIDTH_PX] = BAR_COLOR
        if left != NO_BAR:
            frame[:, left : left + BAR_WIDTH_PX] = BAR_COLOR
    return frames


class DistractorBars(gym.Wrapper):
    """Draws bars at new uniform places into every observation; info["distractor_bars"] names them.

    The info's value is a dict with "top" and "left", the first row and column of the bars, -1 where there is none.

    :param env: an environment with uint8 observations (H, W, 3)
    :param kind: "horizontal", "vertical" or "both"
    :param seed: seed of the bars until a reset with a seed sets another
    :raises ValueError: for another kind or other observations
    """

    def __init__(self, env: gym.Env, kind: DistractorKind, seed: int | None = None) -> None:
        require_environment(env, "DistractorBars")
        super().__init__(env)
        check_kind(kind)
        space = env.observation_space
        if not isinstance(space, gym.spaces.Box) or space.dtype != np.uint8 or len(space.shape) != 3:
            raise ValueError(f"distractors need observations of Box uint8 (H, W, 3), but the environment has {space}")
        if space.shape[2] != len(BAR_COLOR):
            raise ValueError(f"distractors need RGB observations, but the environment has {space}")
        self.kind = kind
        self.random = np.random.default_rng(seed)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment; a seed also sets the bars'."""
        if seed is not None:
            self.random = np.random.default_rng(seed)
        observation, info = self.env.reset(seed=seed, options=options)
        return self._draw(observation, info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        observation, info = self._draw(observation, info)
        return observation, reward, terminated, truncated, info

    def _draw(self, observation: np.ndarray, info: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
        height, width, _ = observation.shape
        places = random_places(self.kind, height, width, self.random)
        info[INFO_KEY] = {"top": int(places.tops[0]), "left": int(places.lefts[0])}
        return draw_bars(observation[None], places)[0], info
