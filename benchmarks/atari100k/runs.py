"""One run of `benchmarks.atari100k`: train, keep the best checkpoint of the validations, test it on unseen seeds."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecTransposeImage

from benchmarks.atari100k.callbacks import GAMES, SECONDS, TimedValidation, TrainingGames
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
from benchmarks.atari100k.play import RandomPlayer, play_episodes
from benchmarks.harness.results import Result, read_result, write_result
from benchmarks.keypoints.run import NUM_KEYPOINTS
from sb3_permakey.common.recurrent_q_learning import RecurrentQLearning
from sb3_permakey.common.run_checkpoint import RunCheckpoint, has_run, load_run
from sb3_permakey.envs.atari import make_atari_env
from sb3_permakey.envs.distractors import DistractorKind
from sb3_permakey.envs.keypoints import VecPermaKeyObservation
from sb3_permakey.files import atomic_file, locked_folder, write_json
from sb3_permakey.keypoints import READOUTS, ReadoutConfig
from sb3_permakey.play.evaluation import FIRST_TEST_SEED
from sb3_permakey.play.saved_agents import load_agent
from sb3_permakey.provenance import provenance
from sb3_permakey.training.presets import PRESETS, reads_images
from sb3_permakey.training.run_folder import RUN
from sb3_permakey.training.validation import (
    BEST_MODEL,
    FIRST_VALIDATION_SEED,
    VALIDATION_ENVS,
    VALIDATION_STEPS,
    VALIDATIONS,
    RandomActions,
)

TESTS: dict[str, dict[str, float]] = {
    "test": {"epsilon": 0.0, "sticky": 0.0},
    "test_with_exploration": {"epsilon": 0.001, "sticky": 0.0},
    "test_with_sticky_actions": {"epsilon": 0.0, "sticky": 0.25},
}
"""The paper's test, whose games without chance repeat themselves; BBF's authors', with some random actions; and one in
which the emulator goes on with the last action (Machado et al. 2018, https://arxiv.org/abs/1709.06009, section 5)."""
DESCRIPTION, TRAINED = "description.json", "trained.json"


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
        _require_same(result, description(task), task.result_path)
    return result


def _require_same(found: dict[str, Any], wanted: dict[str, Any], path: Path) -> None:
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


def train(task: Task) -> dict[str, Any]:
    """Train, or go on with a run that was killed; the best model stays in the run's folder.

    SB3's own agents begin anew: their replay buffers cannot be saved but by pickling gigabytes.

    :return: "validation", a list of {"steps", "scores", "episode_steps"}; "training_games" with the "steps" at which
        games of the training ended and their "scores"; "seconds" of each phase
    """
    place, schedule, run = task.place, task.schedule, task.run
    method = METHODS[run.method]
    algorithm, arguments = algorithm_of(run.method, task.settings)
    kept = (place / BEST_MODEL, place / VALIDATIONS, place / SECONDS, place / GAMES)
    envs = make_envs(task, [run.seed])
    validation_seeds = range(FIRST_VALIDATION_SEED, FIRST_VALIDATION_SEED + VALIDATION_ENVS)
    validation = TimedValidation(
        make_envs(task, validation_seeds[: schedule.validation_episodes], VALIDATION_STEPS),
        place,
        schedule.validate_every,
        schedule.validation_episodes,
    )
    games = TrainingGames(place / GAMES)
    callbacks: list[Any] = [validation, games]
    if issubclass(algorithm, RecurrentQLearning):
        callbacks.append(RunCheckpoint(place / RUN, task.save_every, kept))
    if issubclass(algorithm, RecurrentQLearning) and has_run(place / RUN):
        model: Any = load_run(algorithm, place / RUN, envs, kept, device=task.device)
    else:
        for path in kept:
            path.unlink(missing_ok=True)
        model = algorithm(method.policy, envs, seed=run.seed, device=task.device, **arguments)
    with closing(envs), closing(validation.envs):
        model.learn(
            schedule.steps - model.num_timesteps, callback=callbacks, reset_num_timesteps=model.num_timesteps == 0
        )
    validation.lap("training")
    if not (place / BEST_MODEL).exists():
        with atomic_file(place / BEST_MODEL) as file:
            model.save(file)
    parts = zip(validation.steps, validation.scores, validation.lengths, strict=True)
    trained = {
        "validation": [
            {"steps": int(steps), "scores": _numbers(scores), "episode_steps": _numbers(lengths)}
            for steps, scores, lengths in parts
        ],
        "training_games": games.games,
        "seconds": validation.seconds,
    }
    write_json(place / TRAINED, trained)
    shutil.rmtree(place / RUN, ignore_errors=True)
    return trained


def _numbers(values: Sequence[float]) -> list[float]:
    return [float(value) for value in values]


def test(task: Task, epsilon: float, sticky: float) -> dict[str, Any]:
    """A test of the best model, or of the random policy: seeds and every game's score.

    :param task: what was trained
    :param epsilon: probability that an action is random
    :param sticky: as in `make_envs`
    """
    schedule = task.schedule
    seeds = list(range(FIRST_TEST_SEED, FIRST_TEST_SEED + schedule.test_seeds))
    if not schedule.test_episodes:
        return {"seeds": [], "scores": [], "episode_steps": []}
    with closing(RandomActions(make_envs(task, seeds, sticky=sticky), epsilon, task.run.seed)) as envs:
        player: Any = (
            RandomPlayer(envs.action_space, task.run.seed)
            if METHODS[task.run.method].agent == "random"
            else load_agent(task.place / BEST_MODEL, device=task.device)
        )
        return {"seeds": seeds, **play_episodes(player, envs, schedule.test_episodes)}


def path_of_test(task: Task, name: str) -> Path:
    """Where a test is kept that is done."""
    return task.place / f"{name}.json"


def tested(task: Task, name: str) -> dict[str, Any]:
    """`test` by its name in `TESTS`, with its chances and "seconds"; once done it is kept in the run's folder."""
    path = path_of_test(task, name)
    if not path.exists():
        started = time.monotonic()
        played = {**TESTS[name], **test(task, **TESTS[name])}
        write_json(path, {**played, "seconds": time.monotonic() - started})
    return json.loads(path.read_text())


def policy_of(task: Task) -> dict[str, str] | None:
    """Where the tested policy is kept, beside the results and not among them; None of the random policy."""
    path = task.place / BEST_MODEL
    if not path.exists():
        return None
    return {"file": f"{path.parent.name}/{path.name}", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def do_task(task: Task) -> str:
    """Do a run to its end and write the result; a line about it.

    :raises InUseError: when another process is doing it
    """
    if finished(task) is not None:
        return f"{task.run.name}: done before"
    with locked_folder(task.place):
        return _train_and_test(task)


def _train_and_test(task: Task) -> str:
    described, place = description(task), task.place
    if (place / DESCRIPTION).exists():
        _require_same(json.loads((place / DESCRIPTION).read_text()), described, place)
    write_json(place / DESCRIPTION, described)
    if METHODS[task.run.method].agent == "random":
        trained: dict[str, Any] = {"validation": [], "training_games": {"steps": [], "scores": []}, "seconds": {}}
    elif (place / TRAINED).exists():
        trained = json.loads((place / TRAINED).read_text())
    else:
        for name in TESTS:
            # Of an agent that is trained again.
            path_of_test(task, name).unlink(missing_ok=True)
        trained = train(task)
    tests = {name: tested(task, name) for name in TESTS}
    seconds = sum(one.pop("seconds") for one in tests.values())
    minutes = task.checkpoint.minutes if task.checkpoint else None
    result = {
        **described,
        "validation": trained["validation"],
        "training_games": trained["training_games"],
        **tests,
        "policy": policy_of(task),
        "seconds": {
            "pretraining": None if minutes is None else 60 * minutes,
            **trained["seconds"],
            "test": seconds,
        },
        "threads": torch.get_num_threads(),
        "device": task.device,
        **provenance(),
        "command": task.command,
    }
    write_result(task.result_path, result)
    scores = tests["test"]["scores"]
    score = f"mean test score {np.mean(scores):.0f}" if scores else "not tested"
    return f"{task.run.name}: {score}, {sum(trained['seconds'].values()) / 60:.1f} min of training and validation"
