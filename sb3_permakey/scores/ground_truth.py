"""The objects that a game shows, read from the emulator by OCAtari (Delfosse et al. 2024), as boxes on our frames.

OCAtari's own environments are not used: its extraction reads the emulator behind our environment, so that frames come
from the one preprocessing of `make_atari_env`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np

from sb3_permakey.envs.atari import atari_env_id, plain_game_name
from sb3_permakey.extras import missing_package
from sb3_permakey.keypoints.layers import IMAGE_SIZE

VISION_GAMES = {
    "BattleZone": "boxes from RAM miss crosshair, shots, score and lives, and stand beside tanks and radar dots",
    "Enduro": "boxes from RAM stand beside the cars, and score and level are missing",
}
"""Games whose objects are found by colour on the screen instead of in the emulator's RAM, and why."""
RAM_CATEGORIES = {"Enduro": frozenset({"Player"})}
"""Categories that RAM tells better all the same: Enduro's player is lost beside the road's grey edges."""
NOT_OBJECTS = frozenset(
    {"Pill", "PowerPill", "Wall", "Platform", "Disappearing_Platform", "Ladder", "Conveyer_Belt", "Ground", "Floor"}
)
"""Categories that are left out: static dots and background."""
DISPLAYS = frozenset(
    {
        "Score", "PlayerScore", "EnemyScore", "P1Score", "P2Score", "Player_Score", "Opponent_Score", "ScorePlayerOne",
        "ScorePlayerTwo", "Life", "Lives", "Live", "LifeCount", "Level", "DifficultyLevel", "Round", "Time", "Timer",
        "Clock", "Temperature", "NumberOfCars", "CollectedDiver",
    }
)  # fmt: skip
"""Categories that only tell the state of play; so do all whose name ends in "_HUD" and those that OCAtari calls hud."""
NOT_DISPLAYS = frozenset({"OxygenBar", "OxygenBarDepleted"})
"""Categories that OCAtari calls hud, but that an agent must see to play."""
FIRST_DISPLAY_ROW_PX = {"MsPacman": 68}
"""Below the maze there are displays alone, the level's fruit among them, which has the name of the fruit to eat."""
MOST_BACKGROUND, LEAST_RING_OF_BACKGROUND = 0.91, 0.25
"""A box shows nothing when more of its pixels than this have one colour, and so have more than this around it."""
LONGEST_MOVE_PX = 15.0
"""An object does not move farther than this in a step; what seems to is another object in its place."""


class GroundTruthError(ValueError):
    """Objects of a game that OCAtari cannot tell."""


class FrameObjects(NamedTuple):
    """The N objects of a frame."""

    boxes: np.ndarray
    """float (N, 4), top, left, bottom, right in pixels of the 84x84 frame; pixel i covers [i, i + 1)."""
    categories: tuple[str, ...]
    """OCAtari's names, e.g. "Player"."""
    identities: tuple[str, ...]
    """The same from step to step of an episode for the same object, different within a frame."""
    displays: np.ndarray
    """bool (N,), score, lives and their like."""

    def of_category(self, category: str) -> FrameObjects:
        """Those of one category."""
        chosen = [index for index, name in enumerate(self.categories) if name == category]
        return FrameObjects(
            self.boxes[chosen],
            tuple(self.categories[index] for index in chosen),
            tuple(self.identities[index] for index in chosen),
            self.displays[chosen],
        )


def is_display(category: str, is_hud: bool = False) -> bool:
    """Whether a category only tells the state of play, by its name, or by OCAtari's own word."""
    if category in NOT_DISPLAYS:
        return False
    return is_hud or category in DISPLAYS or category.endswith("_HUD")


def frame_box(xywh: Sequence[float], screen_height: int, screen_width: int) -> tuple[float, float, float, float] | None:
    """A box of emulator pixels as one on the frame.

    :param xywh: left, top, width, height in emulator pixels
    :param screen_height: of the emulator, in pixels
    :param screen_width: of the emulator, in pixels
    :return: top, left, bottom, right in pixels of the frame, cut at its edges; None when nothing is left
    """
    x, y, width, height = (float(value) for value in xywh)
    top, bottom = (min(max(edge * IMAGE_SIZE / screen_height, 0.0), IMAGE_SIZE) for edge in (y, y + height))
    left, right = (min(max(edge * IMAGE_SIZE / screen_width, 0.0), IMAGE_SIZE) for edge in (x, x + width))
    return (top, left, bottom, right) if top < bottom and left < right else None


def is_shown(screen: np.ndarray, xywh: Sequence[float]) -> bool:
    """Whether something is to be seen in a box: False where it and what is around it are of one colour.

    :param screen: uint8 (H, W, 3)
    :param xywh: left, top, width, height in pixels of the screen
    """
    x, y, width, height = (int(value) for value in xywh)
    # Boxes may be off by one, which a thin one does not survive.
    margin = 1 if min(width, height) < 4 else 0
    inside, around = (
        screen[max(y - edge, 0) : y + height + edge, max(x - edge, 0) : x + width + edge].astype(np.int32)
        @ (1 << 16, 1 << 8, 1)
        for edge in (margin, 3)
    )
    if not inside.size:
        return False
    values, counts = np.unique(inside, return_counts=True)
    background = values[counts.argmax()]
    ring_size = around.size - inside.size
    ring_share = ((around == background).sum() - counts.max()) / max(ring_size, 1)
    return counts.max() / inside.size < MOST_BACKGROUND or ring_share < LEAST_RING_OF_BACKGROUND


class GroundTruth:
    """Tells the objects that an environment shows.

    `reset` is called after each reset of it, `step` after each step, `objects` where they are wanted.

    :param env: an environment of `make_atari_env`
    :param game: the same game's name
    :param also: categories of `NOT_OBJECTS` that are wanted all the same
    :raises ImportError: when OCAtari is not installed
    :raises GroundTruthError: when OCAtari does not know the game
    """

    def __init__(self, env: gym.Env, game: str, also: frozenset[str] = frozenset()) -> None:
        self.env = env
        self.left_out = NOT_OBJECTS - also
        self.game = plain_game_name(atari_env_id(game))
        self.ale = env.unwrapped.ale  # type: ignore[attr-defined]
        self.vision = _extraction(self.game, "vision") if self.game in VISION_GAMES else None
        uses_ram = self.vision is None or self.game in RAM_CATEGORIES
        self.ram = _extraction(self.game, "ram") if uses_ram else None
        self.reset()

    def reset(self) -> None:
        """Forget the episode before."""
        self.on_screen: list[Any] = []
        initial = self.ram.init_objects(self.game, True) if self.ram else []
        self.in_ram: list[Any] = [slot() if inspect.isclass(slot) else slot for slot in initial]
        self.seen: FrameObjects | None = None
        self.identities_given = 0

    def step(self) -> None:
        """Follow the game by one step.

        :raises GroundTruthError: when OCAtari fails on it
        """
        if self.ram:
            with self._clear_errors():
                self.ram.detect_objects_ram(self.in_ram, self.ale.getRAM(), self.game, True)

    def objects(self) -> FrameObjects:
        """The objects of the frame that the environment gave last.

        Identities found by colour last from one call to the next, if no more than a step lies between.

        :raises GroundTruthError: when OCAtari fails on this frame
        """
        if self.vision:
            with self._clear_errors():
                self.vision.detect_objects_vision(self.on_screen, self.ale.getScreenRGB(), self.game, True)
        found = self._boxes()
        # On the screen objects are found anew in every frame, in any order.
        self.seen = self._identified(found) if self.vision else found
        return self.seen

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            with np.errstate(over="ignore"):  # RAM cells are bytes, and some games' formulas rely on their overflow
                yield
        except Exception as error:
            raise GroundTruthError(f"OCAtari fails on a frame of {self.game}: {error!r}") from error

    def _boxes(self) -> FrameObjects:
        height, width = self.ale.getScreenDims()
        # The frame shows the maximum of the last two screens.
        screen = np.maximum(*self.env.get_wrapper_attr("obs_buffer"))
        first_display_row = FIRST_DISPLAY_ROW_PX.get(self.game, IMAGE_SIZE)
        boxes, categories, identities, displays = [], [], [], []
        for index, slot in self._slots():
            box = frame_box(slot.xywh, height, width)
            if box is None or (not self.vision and not is_shown(screen, slot.xywh)):
                continue
            boxes.append(box)
            categories.append(slot.category)
            identities.append(f"{slot.category} {index}")
            is_hud = bool(getattr(slot, "hud", False))
            displays.append(is_display(slot.category, is_hud) or box[0] >= first_display_row)
        return FrameObjects(
            np.array(boxes, dtype=float).reshape(-1, 4), tuple(categories), tuple(identities), np.array(displays, bool)
        )

    def _slots(self) -> Iterator[tuple[int, Any]]:
        """OCAtari's objects and their places in its list."""
        by_ram = RAM_CATEGORIES.get(self.game, frozenset())
        for index, slot in enumerate(self.in_ram):
            if slot and slot.category not in self.left_out and (not self.vision or slot.category in by_ram):
                yield index, slot
        for index, slot in enumerate(self.on_screen):
            if slot and slot.category not in self.left_out and slot.category not in by_ram:
                yield index, slot

    def _identified(self, found: FrameObjects) -> FrameObjects:
        """Objects with the identities of the frame before where an object of their category is near enough."""
        # Loading it takes a good part of a second, and RAM alone does not need it.
        from scipy.optimize import linear_sum_assignment

        identities: list[str | None] = [None] * len(found.boxes)
        if self.seen is not None:
            for category in set(found.categories):
                before, now = (
                    [index for index, name in enumerate(objects.categories) if name == category]
                    for objects in (self.seen, found)
                )
                distances = np.linalg.norm(
                    box_centers(self.seen.boxes[before])[:, None] - box_centers(found.boxes[now]), axis=-1
                )
                for row, column in zip(*linear_sum_assignment(distances), strict=True):
                    if distances[row, column] <= LONGEST_MOVE_PX:
                        identities[now[column]] = self.seen.identities[before[row]]
        for index, identity in enumerate(identities):
            if identity is None:
                identities[index] = f"{found.categories[index]} {self.identities_given}"
                self.identities_given += 1
        return found._replace(identities=tuple(str(identity) for identity in identities))


def box_centers(boxes: np.ndarray) -> np.ndarray:
    """Centres (N, 2) of boxes (N, 4)."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def _extraction(game: str, kind: Literal["ram", "vision"]) -> ModuleType:
    """OCAtari's module that reads RAM or screen, with the game's own module loaded, which it looks up by name."""
    try:
        extraction = import_module(f"ocatari.{kind}.extract_{kind}_info")
    except ImportError as error:
        raise missing_package("ground-truth objects need OCAtari", "scores") from error
    try:
        import_module(f"ocatari.{kind}.{game.lower()}")
    except ModuleNotFoundError as error:
        raise GroundTruthError(f"OCAtari knows no objects of {game}, so its keypoints cannot be scored") from error
    return extraction
