"""Saved agents: loaded without naming their algorithm, playing from frames."""

from __future__ import annotations

import copy
import json
import re
import warnings
import zipfile
from collections.abc import Sequence
from importlib import import_module
from inspect import ismethod
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sb3_contrib
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from sb3_permakey.common.numpy_versions import newer_numpy_named
from sb3_permakey.envs.keypoint_space import FRAME_SHAPE, KeypointSpace
from sb3_permakey.envs.keypoints import KeypointObserver
from sb3_permakey.envs.named import LEARNED_IN, NamedEnvironment
from sb3_permakey.envs.previous_action_reward import (
    OBSERVATION,
    PreviousSteps,
    previous_step_size,
    without_previous_step,
)
from sb3_permakey.keypoints import KeypointDetector, ReadoutConfig, warn_of_another_game
from sb3_permakey.keypoints.shipped import named_by_fingerprint
from sb3_permakey.rainbow import Rainbow
from sb3_permakey.recurrent_dqn import RecurrentDQN
from sb3_permakey.recurrent_qrdqn import RecurrentQRDQN


class AgentFileError(ValueError):
    """A saved agent that is missing, broken or of an unknown algorithm."""


AGENT_CLASS = "_agent_class"
"""Entry of a file that names the agent's class, "module:name"."""
BY_POLICY: dict[str, type[BaseAlgorithm]] = {
    "sb3_permakey.rainbow": Rainbow,
    "sb3_permakey.recurrent_dqn": RecurrentDQN,
    "sb3_permakey.recurrent_qrdqn": RecurrentQRDQN,
    "stable_baselines3.dqn": stable_baselines3.DQN,
    "sb3_contrib.qrdqn": sb3_contrib.QRDQN,
    "sb3_contrib.common.recurrent": sb3_contrib.RecurrentPPO,
}
"""Algorithms of files that name none, by the module of their policies: SB3's own, and older ones of this package."""
ACTOR_CRITIC_POLICIES = "stable_baselines3.common.policies"
GRAY_WEIGHTS = np.array([0.299, 0.587, 0.114])
"""Luminance of R, G and B, as OpenCV and SB3's WarpFrame have it."""


def load_agent(path: str | Path, **load_kwargs) -> BaseAlgorithm:
    """Load a model that SB3's `save` wrote, to play.

    What only learning needs is left out: schedules, the last observations, and the replay buffer.
    So RL Zoo's older files open too, whose schedules another Python pickled and whose spaces are gym's.

    SB3's files hold pickles: load only those that you trust.

    :param path: the zip file
    :param load_kwargs: what the algorithm's `load` takes beside the path
    :raises AgentFileError: when the file is missing, broken or of an unknown algorithm
    :raises NumpyVersionError: when it cannot be read for a newer numpy saved it
    """
    path = Path(path)
    if not path.is_file():
        raise AgentFileError(f"no saved agent at {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            data = json.loads(archive.read("data"))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise AgentFileError(f"{path} is not a model saved by Stable-Baselines3") from error
    algorithm = _algorithm(data, path)
    with newer_numpy_named(path):
        return algorithm.load(path, custom_objects=_objects_to_play_with(data), **load_kwargs)


def _algorithm(data: dict[str, Any], path: Path) -> type[BaseAlgorithm]:
    """The algorithm that a file names; of one that names none, the one whose policies it has."""
    if AGENT_CLASS in data:
        return _class_named(data[AGENT_CLASS], path)
    module = data.get("policy_class", {}).get("__module__", "no module")
    if module.startswith(ACTOR_CRITIC_POLICIES):
        return stable_baselines3.PPO if "clip_range" in data else stable_baselines3.A2C
    for prefix, algorithm in BY_POLICY.items():
        if module.startswith(prefix):
            return algorithm
    raise AgentFileError(f"{path} was saved by an algorithm that is not known here (policy in {module})")


def _class_named(name: str, path: Path) -> type[BaseAlgorithm]:
    """The class of a "module:name"."""
    module, _, qualified = name.partition(":")
    try:
        found = attrgetter(qualified)(import_module(module))
    except (ImportError, AttributeError, ValueError) as error:
        raise AgentFileError(f"{path} was saved by {name}, which cannot be imported here") from error
    if not (isinstance(found, type) and issubclass(found, BaseAlgorithm)):
        raise AgentFileError(f"{path} was saved by {name}, which is no algorithm here")
    return found


def _objects_to_play_with(data: dict[str, Any]) -> dict[str, Any]:
    """What takes the place of the file's own entries; SB3 replaces those that the file has."""
    schedules = ("learning_rate", "lr_schedule", "clip_range", "exploration_schedule")
    objects: dict[str, Any] = {name: _zero for name in schedules}
    objects |= {"clip_range_vf": None, "_last_obs": None, "_last_original_obs": None, "_last_episode_starts": None}
    objects |= {"buffer_size": 1, "optimize_memory_usage": False, "replay_device": "cpu"}
    for name in ("observation_space", "action_space"):
        if data[name][":type:"].startswith("<class 'gym."):
            objects[name] = _space_of_gym(data[name])
    return objects


def _space_of_gym(described: dict[str, Any]) -> spaces.Space:
    """The space that gym, gymnasium's forerunner, described beside its pickle: an image's or a number of actions."""
    if "n" in described:
        return spaces.Discrete(int(described["n"]))
    shape = described.get("_shape", described.get("shape", ""))
    return spaces.Box(0, 255, tuple(int(size) for size in re.findall(r"\d+", str(shape))), np.uint8)


def _zero(_: float) -> float:
    return 0.0


class GrayStack:
    """The last frames of each game in gray, as SB3's AtariWrapper and VecFrameStack make them: zeros before the first.

    The luminance is taken after the resize and not before it, which differs by rounding alone.

    :param size: frames in a stack
    :param channels_first: stacks (B, size, 84, 84) instead of (B, 84, 84, size)
    """

    def __init__(self, size: int, *, channels_first: bool) -> None:
        self.size, self.channels_first = size, channels_first
        self.stacks: np.ndarray | None = None

    def observe(self, frames: np.ndarray, episode_starts: np.ndarray) -> np.ndarray:
        """The stacks with new frames, newest last.

        :param frames: uint8 (B, 84, 84, 3)
        :param episode_starts: bool (B,), True where the frame is a game's first
        """
        if self.stacks is None:
            self.stacks = np.zeros((*frames.shape[:-1], self.size), np.uint8)
        gray = np.rint(frames @ GRAY_WEIGHTS).astype(np.uint8)
        past = np.where(np.asarray(episode_starts)[:, None, None, None], np.uint8(0), self.stacks[..., 1:])
        self.stacks = np.concatenate([past, gray[..., None]], axis=-1)
        return np.moveaxis(self.stacks, -1, 1) if self.channels_first else self.stacks

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the games alone, numbered anew from 0."""
        if self.stacks is not None:
            self.stacks = self.stacks[list(rows)]


class Look(NamedTuple):
    """Where an agent looks on a frame."""

    centers: np.ndarray
    """Keypoints, (K, 2)."""
    weights: np.ndarray
    """How much each query looks at each of them, (queries, K)."""


class FrameAgent:
    """A saved agent that plays several games at once from their frames, without exploration.

    Its observation space says what it sees: keypoints; the frames themselves, (84, 84, 3) or (3, 84, 84); or stacks of
    n gray frames, (84, 84, n) or (n, 84, 84), as the Atari agents of RL Zoo do. Beside any of them it may see the
    previous action and reward, as `PreviousActionReward` shows them.

    :param agent: the saved model's file
    :param checkpoint: keypoint checkpoint, for an agent that sees keypoints; None: the package's that made those it
        learned from
    :raises AgentFileError: when the agent sees keypoints and the checkpoint is another than made those that it learned
        from, or none is given and they are none of the package's, or when it sees something else
    """

    def __init__(self, agent: str | Path, checkpoint: str | Path | None) -> None:
        self.path = agent
        self.agent = load_agent(agent)
        self.detector: KeypointDetector | None = None
        self.knows_previous_step = previous_step_size(self.agent.observation_space) > 0
        self.sees = _without_previous_step(self.agent.observation_space)
        space = self.sees
        if isinstance(space, spaces.Dict) and "keypoints" in space.spaces:
            own = named_by_fingerprint(space.fingerprint) if isinstance(space, KeypointSpace) else None
            checkpoint = checkpoint or own
            if checkpoint is None:
                raise AgentFileError(f"{agent} sees keypoints: name the checkpoint that makes them with --checkpoint")
            read = (space.readout if isinstance(space, KeypointSpace) else None) or ReadoutConfig()
            self.detector = KeypointDetector(checkpoint, streaming=True, readout=read.without_unused())
            made = KeypointSpace(self.detector, keep_image=False, history=_history(space))
            if isinstance(space, KeypointSpace) and space.differences(made):
                those = f"; they are those of {own}" if own and space.fingerprint != made.fingerprint else ""
                raise AgentFileError(
                    f"{agent} learned from other keypoints than {checkpoint} makes: {space.differences(made)}{those}"
                )
        elif not _is_image(space):
            raise AgentFileError(f"{agent} sees {space}, not keypoints, RGB frames or gray stacks of 84x84 pixels")
        self.attention = _attention_of(self.agent)
        self._forget()

    def _forget(self) -> None:
        self.observed: Any = None
        self.state: tuple[np.ndarray, ...] | None = None
        self.remembered: tuple[tuple[np.ndarray, ...] | None, np.ndarray] | None = None
        self.observer = self._make_observer()
        self.previous: PreviousSteps | None = None

    def _make_observer(self) -> KeypointObserver | GrayStack | None:
        space = self.sees
        if isinstance(space, spaces.Dict) and self.detector is not None:
            return KeypointObserver(self.detector, keep_image="image" in space.spaces, history=_history(space))
        shape = space.shape or ()
        size, channels_first = (shape[0], True) if shape[1:] == FRAME_SHAPE[:2] else (shape[-1], False)
        return None if size == FRAME_SHAPE[-1] else GrayStack(size, channels_first=channels_first)

    def with_own_memory(self) -> FrameAgent:
        """The same agent for other games: what it remembers of its games is its own, the model is shared."""
        other = copy.copy(self)
        other._forget()
        return other

    def require_fit(self, environment: NamedEnvironment, action_space: spaces.Space) -> None:
        """Raise AgentFileError unless the agent plays with an environment's actions.

        Warn where agent or keypoints come from another environment, as far as their files say it.
        """
        learned_in = getattr(self.agent, LEARNED_IN, environment.id)
        if self.agent.action_space != action_space:
            learned = "" if learned_in == environment.id else f" and learned in {learned_in}"
            raise AgentFileError(
                f"{self.path} plays with actions {self.agent.action_space}{learned}, but {environment.name} has "
                f"{action_space}"
            )
        if learned_in != environment.id:
            warnings.warn(f"{self.path} learned in {learned_in}, not in {environment.id}", stacklevel=2)
        if self.detector is not None:
            warn_of_another_game(self.detector.source, environment.name)

    def act(self, frames: np.ndarray, episode_starts: np.ndarray) -> np.ndarray:
        """Greedy actions.

        :param frames: uint8 (B, 84, 84, 3), one of each game
        :param episode_starts: bool (B,), True where the frame is a game's first
        :return: (B,)
        """
        self.observed, self.remembered = self.observe(frames, episode_starts), (self.state, episode_starts)
        actions, self.state = self.agent.predict(self.observed, self.state, episode_starts, deterministic=True)
        return actions

    def observe(self, frames: np.ndarray, episode_starts: np.ndarray) -> Any:
        """What the agent sees of frames, as `act` takes them."""
        observations: Any = frames
        if self.observer is not None:
            observations = self.observer.observe(frames, episode_starts)
        if self.knows_previous_step:
            self.previous = self.previous or PreviousSteps(self.agent.action_space, len(frames))
            self.previous.forget(episode_starts)
            observations = self.previous.joined_to(observations)
        return observations

    def looks(self, observations: Any) -> list[Look]:
        """Where the agent looks, of each game.

        :param observations: of `observe`
        :raises AgentFileError: when its encoder does not attend, by a method `attention` as KeypointAttention's
        """
        if self.attention is None:
            raise AgentFileError(
                f"{self.path} has no attention to be drawn: its encoder is not KeypointAttention "
                "(sb3-permakey train --encoder attention)"
            )
        policy = self.agent.policy
        tensors, _ = policy.obs_to_tensor(observations)
        prepared: Any = preprocess_obs(
            tensors,
            self.agent.observation_space,
            normalize_images=policy.normalize_images,
        )
        with torch.no_grad():
            weights = self.attention.attention(prepared).cpu().numpy()  # type: ignore[operator]
        return [Look(*parts) for parts in zip(observations["keypoints"], weights, strict=True)]

    def note(self, actions: Sequence[int] | np.ndarray, rewards: Sequence[float] | np.ndarray) -> None:
        """What followed the last `act`; agents that know the previous step see it in the next one.

        :param actions: (B,), as they were played
        :param rewards: (B,), the game's own; the agent sees their signs, as in training
        """
        if self.previous is not None:
            self.previous.note(np.asarray(actions), np.sign(rewards))

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the games alone."""
        if self.state is not None:
            self.state = tuple(part[:, rows] for part in self.state)
        for part in (self.observer, self.previous):
            if part is not None:
                part.keep(rows)


def _attention_of(agent: BaseAlgorithm) -> BaseFeaturesExtractor | None:
    """The encoder of the network that chooses the actions, where it is one that attends."""
    acting: Any = getattr(agent.policy, "acting_net", agent.policy)
    encoders = (module for module in acting.modules() if isinstance(module, BaseFeaturesExtractor))
    return next((encoder for encoder in encoders if ismethod(getattr(encoder, "attention", None))), None)


def _without_previous_step(space: spaces.Space) -> spaces.Space:
    """What an agent sees beside the previous action and reward, which put what was no dict into one."""
    rest = without_previous_step(space)
    if rest is not space and isinstance(rest, spaces.Dict) and set(rest.spaces) == {OBSERVATION}:
        return rest[OBSERVATION]
    return rest


def _history(space: spaces.Space) -> int:
    """How many displacements each keypoint carries; of spaces that do not say so, none."""
    return space.history if isinstance(space, KeypointSpace) else 0


def _is_image(space: spaces.Space) -> bool:
    shape = space.shape or ()
    of_frame_size = len(shape) == 3 and FRAME_SHAPE[:2] in (shape[1:], shape[:2])
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and of_frame_size
