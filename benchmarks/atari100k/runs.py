"""One run of `benchmarks.atari100k`: train, keep the best checkpoint of the validations, test it on unseen seeds."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.atari100k.callbacks import GAMES, SECONDS, TimedValidation, TrainingGames
from benchmarks.atari100k.methods import METHODS, algorithm_of
from benchmarks.atari100k.play import RandomPlayer, play_episodes
from benchmarks.atari100k.tasks import Task, description, finished, make_envs, require_same
from benchmarks.harness.results import write_result
from sb3_permakey.common.recurrent_q_learning import RecurrentQLearning
from sb3_permakey.common.run_checkpoint import RunCheckpoint, has_run, load_run
from sb3_permakey.envs.novelty import VecKeypointNovelty
from sb3_permakey.files import atomic_file, locked_folder, write_json
from sb3_permakey.play.evaluation import FIRST_TEST_SEED
from sb3_permakey.play.saved_agents import load_agent
from sb3_permakey.provenance import provenance
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
    if task.novelty:
        envs = VecKeypointNovelty(envs, task.novelty, run.seed)
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
        require_same(json.loads((place / DESCRIPTION).read_text()), described, place)
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
