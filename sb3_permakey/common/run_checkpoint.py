"""Runs that go on where they were killed: agent, replay buffer, normalisation and random states on disk."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize, unwrap_vec_normalize

from sb3_permakey.common.recurrent_q_learning import RecurrentQLearning
from sb3_permakey.files import atomic_file, locked_folder, write_json

VERSION = 1
AGENT, STATE, BUFFER, FILES = "agent.zip", "state.json", "replay_buffer", "files"
NORMALIZATION, WRAPPERS = "normalization", "wrappers"
SEEDS_OF_RESUMED_RUNS = (2**30, 2**31 - 2**16)
"""Far above the seeds that people give to training, validation and test."""
_held: dict[Path, ExitStack] = {}
"""Folders that learning in this process holds; one that an interrupt left held is taken over."""

Agent = TypeVar("Agent", bound=RecurrentQLearning)


class Learns(Protocol):
    """A wrapper of vectorised environments that learns of them what a run must not lose."""

    def contents(self) -> dict[str, np.ndarray]:
        """What it has learned."""

    def restore(self, contents: dict[str, np.ndarray]) -> None:
        """Go on with what another has learned."""


class RunCheckpointError(ValueError):
    """A folder that holds no run to go on with, or one that does not fit."""


class RunCheckpoint(BaseCallback):
    """Saves a run every so many steps, so that a killed one loses only the steps since; `load_run` goes on.

    The folder holds one checkpoint, the newest, in a folder of its own. It appears whole or not at all, and the one
    before it is removed after it. Environments are not saved: they are reset when the run goes on. While it learns, the
    run holds the folder: another process that wants to learn there gets an `InUseError`.

    :param folder: where the checkpoint goes
    :param save_freq: steps of all environments together between two
    :param files: further files of the run that are kept with it where they exist, and put back by `load_run`
    :param verbose: 1 to report each
    """

    model: RecurrentQLearning

    def __init__(
        self, folder: str | Path, save_freq: int = 10_000, files: Sequence[Path] = (), verbose: int = 0
    ) -> None:
        super().__init__(verbose)
        if save_freq < 1:
            raise ValueError(f"save_freq must be at least 1, got {save_freq}.")
        self.folder, self.save_freq, self.files = Path(folder), save_freq, tuple(files)
        self._saved_at = 0

    def _on_training_start(self) -> None:
        self._saved_at = self.num_timesteps
        place = self.folder.resolve()
        if place not in _held:
            with ExitStack() as opened:
                opened.enter_context(locked_folder(self.folder))
                _held[place] = opened.pop_all()

    def _on_training_end(self) -> None:
        _held.pop(self.folder.resolve(), ExitStack()).close()

    def _on_rollout_start(self) -> None:
        # Here every step made is stored and learned from; in _on_step the newest is neither.
        if self.num_timesteps - self._saved_at >= self.save_freq:
            save_run(self.model, self.folder, self.files)
            self._saved_at = self.num_timesteps
            if self.verbose:
                print(f"{self.folder}: checkpoint after {self.num_timesteps} steps")

    def _on_step(self) -> bool:
        return True


def has_run(folder: str | Path) -> bool:
    """Whether the folder holds a run to go on with."""
    return bool(_checkpoints(Path(folder)))


def saved_steps(folder: str | Path) -> int:
    """Steps that the run in the folder had made when it was saved; 0 where there is none."""
    checkpoints = _checkpoints(Path(folder))
    return int(_read_state(checkpoints[-1])["num_timesteps"]) if checkpoints else 0


def save_run(model: RecurrentQLearning, folder: str | Path, files: Sequence[Path] = ()) -> Path:
    """Save a run between two rollouts.

    :param model: the agent, with its replay buffer and environments
    :param folder: where the checkpoint goes, as a folder named by the number of steps
    :param files: further files to keep with it
    :return: the checkpoint
    :raises WriteError: when the disk does not take it; an older checkpoint is unchanged
    """
    older = _checkpoints(Path(folder))
    place = Path(folder) / f"steps-{model.num_timesteps:09d}"
    while place in older:
        # Never removed before the new one stands.
        place = place.with_name(f"{place.name}-again")
    part = place.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    with atomic_file(part / AGENT) as file:
        model.save(file)  # type: ignore[arg-type]
    _write_arrays(part / BUFFER, model.replay_buffer.contents())
    normalizer = unwrap_vec_normalize(model.env) if model.env is not None else None
    if normalizer is not None:
        _write_arrays(part / NORMALIZATION, _normalization(normalizer))
    for name, wrapper in _learning_wrappers(model.env):
        _write_arrays(part / WRAPPERS / name, wrapper.contents())
    for path in files:
        if path.exists():
            (part / FILES).mkdir(exist_ok=True)
            shutil.copy2(path, part / FILES / path.name)
    state = {"version": VERSION, "agent": type(model).__name__, "num_timesteps": model.num_timesteps}
    write_json(part / STATE, {**state, "random": _random_states(model)})
    os.replace(part, place)
    for checkpoint in older:
        shutil.rmtree(checkpoint)
    return place


def load_run(
    agent: type[Agent], folder: str | Path, env: GymEnv | str, files: Sequence[Path] = (), **kwargs: Any
) -> Agent:
    """The agent of a run that was killed, ready for ``learn(steps_left, reset_num_timesteps=False)``.

    Networks, optimizer, replay buffer, counters, normalisation, contents of wrappers (`Learns`) and random states are
    as they were saved; schedules go on with the counters. The environments begin new episodes with new seeds, drawn
    by the run's seed and its steps from `SEEDS_OF_RESUMED_RUNS`, so that they are none that a validation or a test
    has.

    :param agent: class of the agent
    :param folder: folder of `RunCheckpoint`
    :param env: environments like those that it learned from, or the name of one that gymnasium knows; a VecNormalize
        gets its statistics back
    :param files: the further files, put back to these paths; those that the checkpoint does not hold are removed
    :param kwargs: further arguments of ``agent.load``, for instance ``device``
    :raises RunCheckpointError: when there is none, or one of another agent or version
    """
    checkpoints = _checkpoints(Path(folder))
    if not checkpoints:
        raise RunCheckpointError(f"{folder} holds no checkpoint of a run to go on with")
    place = checkpoints[-1]
    state = _read_state(place)
    if state.get("version") != VERSION or state.get("agent") != agent.__name__:
        raise RunCheckpointError(
            f"{place} is a checkpoint of {state.get('agent')}, version {state.get('version')}; "
            f"needed is {agent.__name__}, version {VERSION}"
        )
    model = agent.load(place / AGENT, env=maybe_make_env(env, verbose=0), **kwargs)
    assert model.env is not None
    model.replay_buffer.restore(_read_arrays(place / BUFFER))
    normalizer = unwrap_vec_normalize(model.env)
    if normalizer is not None and (place / NORMALIZATION).exists():
        _restore_normalization(normalizer, _read_arrays(place / NORMALIZATION))
    for name, wrapper in _learning_wrappers(model.env):
        if (place / WRAPPERS / name).exists():
            wrapper.restore(_read_arrays(place / WRAPPERS / name))
    for path in files:
        path.unlink(missing_ok=True)
        if (place / FILES / path.name).exists():
            shutil.copy2(place / FILES / path.name, path)
    if model.seed is not None:
        model.env.seed(seed_of_resumed_run(model.seed, model.num_timesteps))
    _restore_random_states(model, state["random"])
    return model


def seed_of_resumed_run(seed: int, steps: int) -> int:
    """The environments' seed, of the first one of them, of a run with this seed that goes on after so many steps."""
    return int(np.random.default_rng((seed, steps)).integers(*SEEDS_OF_RESUMED_RUNS))


def _learning_wrappers(env: VecEnv | None) -> list[tuple[str, Learns]]:
    """Wrappers with contents, the outermost first, with a name for each."""
    found: list[tuple[str, Learns]] = []
    while isinstance(env, VecEnvWrapper):
        # Of its class: a wrapper has its inner ones' attributes too.
        if hasattr(type(env), "contents") and hasattr(type(env), "restore"):
            found.append((f"{len(found)}-{type(env).__name__}", env))
        env = env.venv
    return found


def _read_state(place: Path) -> dict[str, Any]:
    try:
        return json.loads((place / STATE).read_text())
    except (OSError, ValueError) as error:
        raise RunCheckpointError(f"{place} is no whole checkpoint of a run: its {STATE} cannot be read") from error


def _checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints in the folder, the newest last."""
    return sorted(path for path in folder.glob("steps-*") if path.suffix != ".part")


def _write_arrays(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        with atomic_file(folder / f"{name}.npy") as file:
            np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)


def _read_arrays(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.load(path, allow_pickle=False) for path in sorted(folder.glob("*.npy"))}


def _statistics(normalizer: VecNormalize) -> dict[str, RunningMeanStd]:
    """The running statistics of a VecNormalize by name."""
    of_observations = getattr(normalizer, "obs_rms", None)
    parts = of_observations if isinstance(of_observations, dict) else {"": of_observations}
    named = {f"observation.{key}": part for key, part in parts.items() if part is not None}
    return {**named, "return": normalizer.ret_rms}


def _normalization(normalizer: VecNormalize) -> dict[str, np.ndarray]:
    return {
        f"{name}.{part}": np.asarray(getattr(statistics, part))
        for name, statistics in _statistics(normalizer).items()
        for part in ("mean", "var", "count")
    }


def _restore_normalization(normalizer: VecNormalize, arrays: dict[str, np.ndarray]) -> None:
    for name, statistics in _statistics(normalizer).items():
        statistics.mean, statistics.var = arrays[f"{name}.mean"], arrays[f"{name}.var"]
        statistics.count = float(arrays[f"{name}.count"])


def _random_states(model: RecurrentQLearning) -> dict[str, Any]:
    """States of all generators that a run draws from, as JSON takes them."""
    name, keys, position, has_gauss, cached = np.random.get_state()
    version, internal, gauss = random.getstate()
    return {
        "python": [version, list(internal), gauss],
        "numpy": [name, np.asarray(keys).tolist(), position, has_gauss, cached],
        "torch": torch.get_rng_state().tolist(),
        "cuda": [generator.tolist() for generator in torch.cuda.get_rng_state_all()],
        "actions": model.action_space.np_random.bit_generator.state,
    }


def _restore_random_states(model: RecurrentQLearning, states: dict[str, Any]) -> None:
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(torch.tensor(states["torch"], dtype=torch.uint8))
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([torch.tensor(part, dtype=torch.uint8) for part in states["cuda"]])
    model.action_space.np_random.bit_generator.state = states["actions"]
