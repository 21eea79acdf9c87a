"""A control without keypoints: the objects that OCAtari reads, each with its kind, size, colour and motion.

Places alone tell less than a frame does: whether a floe of Frostbite counts is its colour, how far the igloo is its
size, and oxygen and divers on board are displays. Here a node is an object's place, a one at its kind, its height and
width, the brightest red, green and blue inside its box, and its last displacements, displays among them. Static dots
and walls are left out, save MsPacman's power pills.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from benchmarks.atari100k.observations import NOWHERE, ObjectSlots, middles
from sb3_permakey.envs.atari import plain_game_name
from sb3_permakey.keypoints.layers import IMAGE_SIZE
from sb3_permakey.keypoints.motion import JUMP, KeypointMotion
from sb3_permakey.scores import GroundTruth, GroundTruthError

OBJECT_SLOTS = 24
"""Displays included: in 600 steps of random play Frostbite showed 19 at once, the other three games fewer."""
STATIC_OBJECTS = {"MsPacman": frozenset({"PowerPill"})}
"""What the scores of keypoints leave out as static, but an agent must see."""


def kinds_of(game: str) -> list[str]:
    """The names of all kinds of objects that OCAtari knows in a game, by RAM or on the screen."""
    ram, vision = (import_module(f"ocatari.{way}.{game.lower()}") for way in ("ram", "vision"))
    on_screen = {name for name, kind in vars(vision).items() if isinstance(kind, type)}
    return sorted({*ram.MAX_NB_OBJECTS_HUD, *on_screen} - {"GameObject", "NoObject", "Pill"})


def describe_objects(
    frame: np.ndarray, boxes: np.ndarray, categories: tuple[str, ...], kinds: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Places and features of the N objects of a frame.

    :param frame: uint8 (84, 84, 3)
    :param boxes: (N, 4), top, left, bottom, right in pixels of the frame
    :param categories: the kind of each
    :param kinds: all kinds of the game
    :return: (N, 2), (y, x) of the boxes' middles in [-1, 1]; (N, len(kinds) + 5): a one at its kind, height and width
        as parts of the frame, the brightest red, green and blue in [0, 1]
    """
    features = np.zeros((len(boxes), len(kinds) + 5))
    for row, (box, category) in enumerate(zip(boxes, categories, strict=True)):
        if category in kinds:
            features[row, kinds.index(category)] = 1
        top, left = np.floor(box[:2]).astype(int).clip(0, IMAGE_SIZE - 1)
        bottom, right = np.ceil(box[2:]).astype(int)
        features[row, -5:-3] = (box[2:] - box[:2]) / IMAGE_SIZE
        features[row, -3:] = frame[top:bottom, left:right].max(axis=(0, 1)) / 255
    return middles(boxes), features


class ObjectObservation(gym.ObservationWrapper):
    """Observations like those of `PermaKeyObservation` by peaks, of true objects instead of keypoints.

    An object keeps its place among the K while it is shown. Where there is none, features and confidence are zero.

    :param env: an environment of `make_atari_env`
    :param game: its game
    :param count: K
    :param history: how many displacements of each object are in "motion"; 0: no such entry
    """

    def __init__(self, env: gym.Env, game: str, count: int = OBJECT_SLOTS, history: int = 3) -> None:
        super().__init__(env)
        game = plain_game_name(game)
        self.truth = GroundTruth(env, game, also=STATIC_OBJECTS.get(game, frozenset()))
        self.kinds = kinds_of(game)
        self.count, self.history = count, history
        entries: dict[str, spaces.Space] = {
            "keypoints": spaces.Box(-1.0, 1.0, (count, 2), np.float32),
            "features": spaces.Box(0.0, 1.0, (count, len(self.kinds) + 5), np.float32),
            "confidence": spaces.Box(0.0, 1.0, (count,), np.float32),
        }
        if history:
            entries["motion"] = spaces.Box(-JUMP, JUMP, (count, 2 * history), np.float32)
        self.observation_space = spaces.Dict(entries)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Reset; objects of the first frame."""
        frame, info = self.env.reset(**kwargs)
        self.truth.reset()
        self.slots = ObjectSlots(self.count)
        self.motion = KeypointMotion(self.history) if self.history else None
        self.nodes = self._nothing()
        return self._observe(frame, start=True), info

    def observation(self, observation: np.ndarray) -> dict[str, np.ndarray]:
        """Objects of one frame; where OCAtari fails, those of the frame before."""
        return self._observe(observation, start=False)

    def _nothing(self) -> dict[str, np.ndarray]:
        width = len(self.kinds) + 5
        return {
            "keypoints": np.tile(np.float32(NOWHERE[:2]), (self.count, 1)),
            "features": np.zeros((self.count, width), np.float32),
            "confidence": np.zeros(self.count, np.float32),
        }

    def _observe(self, frame: np.ndarray, *, start: bool) -> dict[str, np.ndarray]:
        try:
            self.truth.step()
            found = self.truth.objects()
        except GroundTruthError:
            found = None
        if found is not None:
            self.nodes = self._nothing()
            centers, features = describe_objects(frame, found.boxes, found.categories, self.kinds)
            for slot, index in enumerate(self.slots.assign(found)):
                if index is not None:
                    self.nodes["keypoints"][slot] = centers[index]
                    self.nodes["features"][slot] = features[index]
                    self.nodes["confidence"][slot] = 1
        if self.motion is None:
            return dict(self.nodes)
        return {**self.nodes, "motion": self.motion.observe(self.nodes["keypoints"][None], [start])[0]}
