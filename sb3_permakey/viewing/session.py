"""Play that is looked at: an environment one step at a time, and what keypoints, truth and an agent make of its frames.

It knows nothing of the page that shows it.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from sb3_permakey.envs.distractors import DistractorKind, check_kind
from sb3_permakey.envs.keypoints import KeypointObserver
from sb3_permakey.envs.named import NamedEnvironment, action_names
from sb3_permakey.envs.own import require_discrete_actions
from sb3_permakey.keypoints import KeypointDetector, ReadoutConfig, warn_of_another_game
from sb3_permakey.play.action_values import action_values
from sb3_permakey.play.players import EpisodeActions
from sb3_permakey.play.saved_agents import FrameAgent
from sb3_permakey.scores import FrameObjects, GroundTruth, GroundTruthError
from sb3_permakey.settings import require_choice, require_range, require_seed
from sb3_permakey.viewing.running_score import RunningScore

Player = Literal["random", "agent", "keys"]
MOST_SIDES = 2
KEYS = {
    "ArrowUp": "UP", "ArrowDown": "DOWN", "ArrowLeft": "LEFT", "ArrowRight": "RIGHT",
    "w": "UP", "s": "DOWN", "a": "LEFT", "d": "RIGHT", " ": "FIRE",
}  # fmt: skip
"""The parts of actions' names that keys stand for, by what browsers call the keys."""


@dataclass(frozen=True)
class Side:
    """One way to see the frames."""

    checkpoint: str
    """A checkpoint's file or name."""
    readout: ReadoutConfig = field(default_factory=ReadoutConfig)


@dataclass(frozen=True)
class ViewSettings:
    """What is looked at.

    :raises ValueError: for another number of sides, an unknown distractor, or a seed that an emulator does not take
    """

    environment: NamedEnvironment
    sides: tuple[Side, ...]
    distractor: DistractorKind | None = None
    agent: Path | None = None
    """A saved agent's file; one that sees keypoints sees those of the first side's checkpoint that fits it."""
    seed: int = 0

    def __post_init__(self) -> None:
        require_range(1, MOST_SIDES, sides=len(self.sides))
        require_seed(self.seed)
        if self.distractor is not None:
            check_kind(self.distractor)


@dataclass(frozen=True)
class SideLook:
    """A frame's keypoints as one side sees them."""

    title: str
    centers: np.ndarray
    """(K, 2), (y, x) in [-1, 1]; each keeps its place in the order through an episode."""
    confidence: np.ndarray | None
    """(K,)."""
    window_std: float
    scores: dict[str, float] | None
    """Precision, recall and F1 of all frames since the reset; None without true objects."""


@dataclass(frozen=True)
class AgentLook:
    """What an agent makes of a frame."""

    choice: int
    """Its greedy action."""
    values: np.ndarray | None
    """(actions,), expected values; None of an agent that has none."""
    centers: np.ndarray | None
    """(K, 2), the keypoints that it sees; None of one that sees pixels."""
    attention: np.ndarray | None
    """(queries, K); None where its encoder does not choose where to look."""


@dataclass(frozen=True)
class Look:
    """A frame, and what is known of it."""

    frame: np.ndarray
    """uint8 (84, 84, 3)."""
    sides: tuple[SideLook, ...]
    agent: AgentLook | None
    objects: FrameObjects | None
    """The true ones; None where they cannot be told."""
    episode: int
    step: int
    """Of the episode."""
    score: float
    """Sum of the episode's rewards."""
    action: str | None
    """The one that led here; None at an episode's start."""
    is_over: bool
    """Whether the episode ends here."""


class ViewSession:
    """An environment that is played step by step, and looked at.

    What users should know beside is in `notes`: why there are no true objects, a checkpoint of another game.

    :param settings: what is looked at
    :raises ValueError: when the environment, a checkpoint or the agent is missing, broken, or does not fit the others
    :raises ImportError: when a package is missing
    """

    look: Look
    """The present one."""
    info: dict[str, Any]
    """The environment's, of the present frame."""
    thinking: EpisodeActions | None
    """The agent's choices in this episode."""
    random_actions: EpisodeActions
    steps: int
    score: float

    def __init__(self, settings: ViewSettings) -> None:
        self.settings = settings
        self.notes: list[str] = []
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", UserWarning)
            self.detectors = [_detector(side, settings.environment) for side in settings.sides]
            self.env = settings.environment.make(training=False, distractor=settings.distractor)
            try:
                require_discrete_actions(self.env.action_space, settings.environment.name)
                self.action_names = action_names(self.env)
                self.agent = self._agent()
                self.truth = self._truth()
                self.reset()
            except BaseException:
                self.env.close()
                raise
        self.notes += [str(one.message) for one in told if issubclass(one.category, UserWarning)]

    def reset(self) -> Look:
        """Begin again with the seed's first episode; scores begin anew too."""
        self.episode = -1
        self.running = [RunningScore() for _ in self.detectors]
        return self._begin(seed=self.settings.seed)

    def step(self, player: Player, keys: Iterable[str] = ()) -> Look:
        """Play one step; after an episode's end, begin the next one.

        :param player: who chooses: "random", with actions that last 1 to 8 steps, the "agent", or "keys"
        :param keys: what browsers call the keys that are held down
        :raises ValueError: for another player, or for the agent where there is none
        """
        require_choice(get_args(Player), player=player)
        if player == "agent" and self.thinking is None:
            raise ValueError("no agent is open: name an agent's file and open again, or play at random or by keys")
        if self.look.is_over:
            return self._begin()
        if player == "keys":
            action = action_of_keys(keys, self.action_names)
        elif player == "agent" and self.look.agent is not None:
            action = self.look.agent.choice
        else:
            action = self.random_actions.next(self.look.frame, self.info)
        frame, reward, terminated, truncated, self.info = self.env.step(action)
        self.score += float(reward)
        self.steps += 1
        if self.thinking is not None and self.thinking.agent is not None:
            self.thinking.agent.note([action], [float(reward)])
        return self._look_at(np.array(frame), self.action_names[action], bool(terminated or truncated))

    def error_maps(self, side: int) -> dict[int, np.ndarray]:
        """The present frame's error maps as a side's model has them, (84, 84) in [0, 1], by the encoder's layers."""
        detector = self.detectors[side]
        layers = detector.model.error_map_layers
        if not layers:
            return {}
        (maps,) = detector.error_maps(self.look.frame[None])
        return dict(zip(layers, maps, strict=True))

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _begin(self, seed: int | None = None) -> Look:
        """Begin an episode."""
        self.episode += 1
        frame, self.info = self.env.reset(seed=seed)
        if self.truth is not None:
            self.truth.reset()
        randoms = [np.random.default_rng((self.settings.seed, self.episode, who)) for who in range(2)]
        self.random_actions = EpisodeActions(None, self.env.action_space, 0.0, randoms[0])
        self.thinking = EpisodeActions(self.agent, self.env.action_space, 0.0, randoms[1]) if self.agent else None
        self.observers = [KeypointObserver(detector, keep_image=False) for detector in self.detectors]
        self.steps, self.score = 0, 0.0
        return self._look_at(np.array(frame), None, is_over=False)

    def _look_at(self, frame: np.ndarray, action: str | None, is_over: bool) -> Look:
        objects = self._objects()
        self.look = Look(
            frame=frame,
            sides=tuple(self._side_look(side, frame, objects) for side in range(len(self.detectors))),
            agent=self._agent_look(frame),
            objects=objects,
            episode=self.episode,
            step=self.steps,
            score=self.score,
            action=action,
            is_over=is_over,
        )
        return self.look

    def _side_look(self, side: int, frame: np.ndarray, objects: FrameObjects | None) -> SideLook:
        seen = self.observers[side].observe(frame[None], [self.steps == 0])
        centers, running = seen["keypoints"][0], self.running[side]
        if objects is not None:
            running.add(centers, objects)
        readout = self.detectors[side].readout
        return SideLook(
            title=f"{Path(self.settings.sides[side].checkpoint).stem}, {readout.kind.name}, K = {len(centers)}",
            centers=centers,
            confidence=seen["confidence"][0] if "confidence" in seen else None,
            window_std=self.detectors[side].config.window_std,
            scores=running.scores() if running.frames else None,
        )

    def _agent_look(self, frame: np.ndarray) -> AgentLook | None:
        if self.thinking is None or self.thinking.agent is None:
            return None
        choice, agent = self.thinking.next(frame, self.info), self.thinking.agent
        values, sees_keypoints = action_values(agent), agent.detector is not None
        return AgentLook(
            choice=choice,
            values=None if values is None else values[0],
            centers=agent.observed["keypoints"][0] if sees_keypoints else None,
            attention=None if agent.attention is None else agent.looks(agent.observed)[0].weights,
        )

    def _objects(self) -> FrameObjects | None:
        """The frame's true objects; None where OCAtari does not know the game, or fails on this frame."""
        if self.truth is None:
            return None
        with suppress(GroundTruthError):
            self.truth.step()
            return self.truth.objects()
        return None

    def _agent(self) -> FrameAgent | None:
        """The saved agent, which sees keypoints of the first checkpoint that made those it learned from."""
        path = self.settings.agent
        if path is None:
            return None
        refusals: list[ValueError] = []
        for side in self.settings.sides:
            try:
                agent = FrameAgent(path, side.checkpoint)
                break
            except ValueError as error:
                refusals.append(error)
        else:
            raise refusals[0]
        agent.require_fit(self.settings.environment, self.env.action_space)
        return agent

    def _truth(self) -> GroundTruth | None:
        game = self.settings.environment.game
        if game is None:
            self.notes.append("no true boxes: OCAtari tells the objects of Atari games alone")
            return None
        try:
            return GroundTruth(self.env, game)
        except (ImportError, GroundTruthError) as error:
            self.notes.append(f"no true boxes: {error}")
            return None


def action_of_keys(keys: Iterable[str], names: Sequence[str]) -> int:
    """The action that keys stand for: a digit its number; arrows, or w, a, s and d, and space by the actions' names.

    Of several actions the one that uses most of the keys, and no part that is not pressed: a game without a diagonal
    keeps one of its directions. Without keys, an action whose name has no such part, which NOOP is; the first where
    there is none.

    :param keys: what browsers call the keys that are held down
    :param names: of the actions, "UPRIGHTFIRE"
    """
    held = list(keys)
    for key in held:
        if key.isdecimal() and int(key) < len(names):
            return int(key)
    pressed = {KEYS[key] for key in held if key in KEYS}
    parts = [set(re.findall("UP|DOWN|LEFT|RIGHT|FIRE", name.upper())) for name in names]
    possible = [index for index, own in enumerate(parts) if own <= pressed]
    return max(possible, key=lambda index: len(parts[index]), default=0)


def _detector(side: Side, environment: NamedEnvironment) -> KeypointDetector:
    detector = KeypointDetector(side.checkpoint, streaming=True, readout=side.readout)
    detector.check_channels(3)
    warn_of_another_game(side.checkpoint, environment.name)
    return detector
