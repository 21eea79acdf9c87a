"""What a run of `benchmarks.atari100k` is: game, method, seed, schedule, and the environments that its agent sees."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecTransposeImage

from benchmarks.atari100k.checkpoints import Checkpoint, WantedCheckpoint, paper_keypoints
from benchmarks.atari100k.methods import (
    METHODS,
    STACKED_FRAMES,
    agent_settings,
    algorithm_of,
    preset_of,
    readout_of,
)
from benchmarks.atari100k.objects import ObjectObservation
from benchmarks.atari100k.observations import GrayFrame, VecPointObservation, with_points
from benchmarks.harness.results import Result, read_result
from benchmarks.keypoints.run import NUM_KEYPOINTS
from sb3_permakey.envs.atari import make_atari_env
from sb3_permakey.envs.distractors import DistractorKind
from sb3_permakey.envs.keypoints import VecPermaKeyObservation
from sb3_permakey.keypoints import READOUTS, ReadoutConfig
from sb3_permakey.training.presets import PRESETS, reads_images
from sb3_permakey.training.validation import FIRST_VALIDATION_SEED


@dataclass(frozen=True)
class Schedule:
    """How long a run trains, and how it is judged."""

    steps: int = 100_000
    """Agent steps."""
    validate_every: int = 10_000
    """Agent steps between two validations."""
    validation_episodes: int = 10
    """Whole games of each validation, each of its actions random with probability .001."""
    test_seeds: int = 10
    """Environment seeds of the final test."""
    test_episodes: int = 10
    """Whole games on each; 0: no final test, for settings that are still to be chosen."""

    def __post_init__(self) -> None:
        for name in ("steps", "validate_every", "validation_episodes", "test_seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.test_episodes < 0:
            raise ValueError(f"test_episodes must not be negative, not {self.test_episodes}")


@dataclass(frozen=True)
class Run:
    """One agent on one game."""

    game: str
    method: str
    preset: str | None
    """None for methods to which presets mean nothing."""
    noise: Literal["clean", "both"]
    num_keypoints: int | None
    """None for methods without keypoints."""
    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.seed < FIRST_VALIDATION_SEED:
            raise ValueError(f"seed must be from 0 to {FIRST_VALIDATION_SEED - 1}, not {self.seed}")

    @property
    def name(self) -> str:
        """Name of its files."""
        keypoints = f"k{self.num_keypoints}" if self.num_keypoints else None
        parts = (self.game.lower(), self.method, self.preset, keypoints, self.noise, self.seed)
        return "-".join(str(part) for part in parts if part is not None)

    @property
    def distractor(self) -> DistractorKind | None:
        """The bars on its frames."""
        return None if self.noise == "clean" else self.noise

    @property
    def wanted_checkpoint(self) -> WantedCheckpoint | None:
        """The keypoint checkpoint that it needs; peaks of any number are read from that of the paper's."""
        method = METHODS[self.method]
        if method.checkpoint is None or self.num_keypoints is None:
            return None
        any_number = READOUTS[readout_of(method, self.preset)].any_number
        count = NUM_KEYPOINTS.get(self.game, self.num_keypoints) if any_number else self.num_keypoints
        return WantedCheckpoint(self.game, method.checkpoint, self.noise, count)


def make_run(
    game: str, method: str, preset: str, noise: Literal["clean", "both"], keypoints: int | None, seed: int
) -> Run:
    """A run, without what its method does not know; K is the paper's where none is given."""
    count = None if METHODS[method].checkpoint is None else keypoints or paper_keypoints(game)
    return Run(game, method, preset_of(method, preset), noise, count, seed)


@dataclass(frozen=True)
class Task:
    """A run with all that a process needs to do it."""

    run: Run
    schedule: Schedule
    overrides: tuple[str, ...]
    """Settings that differ from the preset's, see `agent_settings`."""
    checkpoint: Checkpoint | None
    folder: Path
    """Where runs keep their models and checkpoints while they last."""
    results: Path
    device: str = "auto"
    save_every: int = 10_000
    """Agent steps between two checkpoints of the run."""
    novelty: float = 0.0
    """Scale of the bonus for keypoints in new places, in training alone; 0: none."""
    command: str = ""
    """The command line that asked for the run."""

    @property
    def place(self) -> Path:
        """The run's own folder."""
        return self.folder / self.run.name

    @property
    def result_path(self) -> Path:
        """The run's result."""
        return self.results / f"{self.run.name}.json"

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of the run's algorithm."""
        return agent_settings(self.run.method, self.run.preset, self.overrides)


def check_settings(task: Task) -> None:
    """Raise ValueError for settings that the run's algorithm does not take."""
    if METHODS[task.run.method].agent != "random":
        algorithm_of(task.run.method, task.settings)


def description(task: Task) -> dict[str, Any]:
    """What a run is, as its files have it."""
    checkpoint = task.checkpoint
    content = None if checkpoint is None else hashlib.sha256(checkpoint.path.read_bytes()).hexdigest()
    described = {
        **asdict(task.run),
        "settings": task.settings,
        "novelty": task.novelty or None,
        "schedule": asdict(task.schedule),
        "checkpoint": None if checkpoint is None else {"file": checkpoint.path.name, "sha256": content},
    }
    return json.loads(json.dumps(described, default=str))  # classes as they call themselves


def finished(task: Task) -> Result | None:
    """The run's result, None when it is not done; a damaged file is set aside.

    :raises ValueError: when the file holds a run with other settings
    """
    result = read_result(task.result_path)
    if result is not None:
        require_same(result, description(task), task.result_path)
    return result


def require_same(found: dict[str, Any], wanted: dict[str, Any], path: Path) -> None:
    """Raise ValueError where a file holds a run with other settings than those wanted."""
    other = [name for name, value in wanted.items() if _content(found.get(name)) != _content(value)]
    if other:
        raise ValueError(f"{path} holds a run with other {', '.join(other)}; move it away or use other folders")


def _content(value: Any) -> Any:
    """What counts of an entry: of a file its sum, whatever its name was."""
    return value.get("sha256", value) if isinstance(value, dict) else value


def stores_images(task: Task) -> bool:
    """Whether the run's replay buffer holds images."""
    return METHODS[task.run.method].observes in ("pixels", "gray") or reads_images(task.settings)


def make_envs(task: Task, seeds: Sequence[int], max_steps: int | None = None, sticky: float = 0.0) -> VecEnv:
    """Environments with these seeds, as the run's agent sees them.

    :param task: the run
    :param seeds: one for each environment
    :param max_steps: agent steps after which games are cut
    :param sticky: probability with which the emulator goes on with the last action, in each of its frames
    """
    run, method = task.run, METHODS[task.run.method]
    history = PRESETS[run.preset].history if run.preset else 0

    def maker(seed: int) -> Callable[[], gym.Env]:
        def make() -> gym.Env:
            env = make_atari_env(run.game, seed=seed, distractor=run.distractor, max_steps=max_steps, sticky=sticky)
            if method.points is not None:
                assert run.num_keypoints is not None
                return with_points(env, method.points, run.game, run.num_keypoints, seed)
            if method.observes == "objects":
                return ObjectObservation(env, run.game, history=history)
            return GrayFrame(env) if method.observes == "gray" else env

        return make

    envs: VecEnv = DummyVecEnv([maker(seed) for seed in seeds])
    if method.observes == "gray":
        envs = VecFrameStack(envs, STACKED_FRAMES)
    if task.checkpoint is not None:
        assert run.num_keypoints is not None
        read = ReadoutConfig(readout_of(method, run.preset), run.num_keypoints, **method.read_with)
        if method.observes == "points":
            return VecPointObservation(envs, task.checkpoint.path, read, task.device)
        envs = VecPermaKeyObservation(
            envs,
            task.checkpoint.path,
            keep_image=reads_images(task.settings),
            history=history,
            device=task.device,
            readout=read,
        )
    return VecTransposeImage(envs) if stores_images(task) else envs
