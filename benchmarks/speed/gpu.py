"""Pretraining, detectors and agents on one GPU, in one command of at most four minutes.

    python -m benchmarks.speed gpu --update
    python -m benchmarks.speed gpu --device cpu --turns 1 --turn-s 0.5 --steps-at-once 4 --environments 2    # a trial

It needs the extra `atari`; frames are drawn at random, the keypoints' checkpoint comes with the package, and nothing is
downloaded. Agents take turns, so that whatever slows the host down slows all of them; what is compared is the ratio to
SB3's DQN on pixels. Where the time is up, no turn begins any more, and what had none is left out.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import SubprocVecEnv

from benchmarks.harness.command import run_command
from benchmarks.harness.play import played_frames
from benchmarks.harness.tables import table
from benchmarks.speed.agents import GAME, PIXELS, REFERENCE, learn, turn
from sb3_permakey import PermaKeyObservation, Rainbow, RecurrentDQN, VecPermaKeyObservation, make_atari_env
from sb3_permakey.common.presets import RAINBOW_PEAKS, STRONG
from sb3_permakey.envs.atari import PREPROCESSING
from sb3_permakey.files import write_json
from sb3_permakey.frames.store import FrameStore, write_store
from sb3_permakey.keypoints import KeypointDetector, PermaKeyConfig
from sb3_permakey.keypoints.device import freed_memory_kept, resolve_device
from sb3_permakey.pretraining.config import PretrainConfig
from sb3_permakey.pretraining.trainer import Pretraining
from sb3_permakey.provenance import provenance

CHECKPOINT = "mspacman-teacher"
SMALL = {"learning_starts": 100, "buffer_size": 5000, "seed": 0}
ON_GPU = {"cuda_graph": True, "replay_device": "auto"}
EPISODES, FRAMES = 3, 100
"""Episodes of the random frames, and frames of each."""
SHARE_OF_PRETRAINING = 0.3
"""Part of the time in which pretraining may begin another turn."""
PRETRAINING: dict[str, dict[str, Any]] = {
    "all modules, float32": {"precision": "float32"},
    "all modules, bfloat16": {"precision": "bfloat16"},
    "VAE and LSPN on every 4th image, bfloat16": {
        "precision": "bfloat16",
        "schedule": "staged",
        "lspn_stride": 4,
    },
    "Transporter, bfloat16": {"precision": "bfloat16", "method": "transporter", "model": PermaKeyConfig()},
}

FRAMES_AT_ONCE, CALLS = 16, 50
"""Frames of a detector's larger calls, and its calls in a turn."""
SHARE_OF_DETECTORS = 0.4
"""Part of the time in which detectors may begin another turn."""
DETECTORS: dict[str, dict[str, Any]] = {
    "CPU, streaming": {"streaming": True},
    "GPU": {},
    "GPU, one replay": {"cuda_graph": True},
}
COMPILED = {"all modules, bfloat16, compiled": {"precision": "bfloat16", "compile": True}}


@dataclass(frozen=True)
class GpuSpeed:
    """Time pretraining and agents on one GPU."""

    most_s: float = 220.0
    """Seconds after which no turn begins."""
    turns: int = 5
    """Turns of each; the median counts."""
    turn_s: float = 3.0
    """Seconds of an agent's turn."""
    steps_at_once: int = 50
    """Steps of pretraining in a turn."""
    compiled: bool = False
    """Measure pretraining with compiled losses too; a minute or more goes by until they are."""
    environments: int = 16
    """Environments of the agent that has several."""
    threads: int = 2
    """CPU threads."""
    device: str = "auto"
    """Where to compute."""
    out: Path = Path("benchmarks/results/gpu_speed.json")
    """JSON file to write."""


@dataclass
class Clock:
    """Tells whether there is time for another turn."""

    most_s: float
    started: float = field(default_factory=time.monotonic)

    @property
    def spent_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def allows(self, share: float = 1.0) -> bool:
        """Whether less than this part of the time is spent."""
        return self.spent_s < share * self.most_s


def peaks_env(cuda_graph: bool, **settings: Any) -> PermaKeyObservation:
    """Peaks of the game, one environment."""
    game = make_atari_env(GAME, seed=0)
    return PermaKeyObservation(game, CHECKPOINT, readout="peaks", cuda_graph=cuda_graph, **settings)


def strong(device: str, **settings: Any) -> BaseAlgorithm:
    """RecurrentDQN with the settings `strong`."""
    env = peaks_env("cuda_graph" in settings)
    return RecurrentDQN("PermaKeyPolicy", env, device=device, **STRONG, **SMALL, **settings)


def strong_on_many(device: str, count: int) -> BaseAlgorithm:
    """The same on several environments in processes, with as many updates a step."""
    games = SubprocVecEnv([lambda seed=seed: make_atari_env(GAME, seed=seed) for seed in range(count)])
    env = VecPermaKeyObservation(games, CHECKPOINT, readout="peaks", cuda_graph=True)
    ratio = {"train_freq": 1, "gradient_steps": max(count // STRONG["train_freq"], 1)}
    return RecurrentDQN("PermaKeyPolicy", env, device=device, **{**STRONG, **SMALL, **ratio, **ON_GPU})


def rainbow(device: str, **settings: Any) -> BaseAlgorithm:
    """Rainbow on peaks with their last displacements, two updates a step."""
    env = peaks_env("cuda_graph" in settings, history=3)
    return Rainbow("PermaKeyPolicy", env, device=device, **{**RAINBOW_PEAKS, **SMALL, **settings})


def agents(config: GpuSpeed) -> dict[str, Callable[[], BaseAlgorithm]]:
    """What takes turns, DQN first."""
    device, count = config.device, config.environments
    return {
        REFERENCE: lambda: PIXELS[REFERENCE](env=make_atari_env(GAME, seed=0), device=device),
        "RecurrentDQN, strong": lambda: strong(device),
        "RecurrentDQN, strong, one replay": lambda: strong(device, **ON_GPU),
        "Rainbow on peaks": lambda: rainbow(device),
        "Rainbow on peaks, one replay": lambda: rainbow(device, **ON_GPU),
        f"RecurrentDQN, strong, one replay, {count} environments": lambda: strong_on_many(device, count),
    }


def random_frames(folder: Path) -> FrameStore:
    """A store of random frames."""
    random = np.random.default_rng(0)
    episodes = [random.integers(256, size=(FRAMES, 84, 84, 3), dtype=np.uint8) for _ in range(EPISODES)]
    description = {"game": GAME, "preprocessing": PREPROCESSING}
    return write_store(folder / "frames", episodes, (0.7, 0.15, 0.15), description)


def steps_of(config: GpuSpeed, store: FrameStore, settings: dict[str, Any]) -> Callable[[], float]:
    """What makes a turn's steps of pretraining, as `pretrain` does, and says how many ms one took."""
    out = store.path.parent / "model.safetensors"
    training = Pretraining(PretrainConfig(frames=store.path, out=out, device=config.device, **settings))
    training._load()
    stage = training._make_stage()
    compute, optimizer = training._losses_of(stage), training._make_optimizer(stage)

    def steps() -> float:
        _wait_for(training.device)
        started = time.perf_counter()
        for _ in range(config.steps_at_once):
            training._train_step(stage, compute, optimizer)
        training.unread.read()
        _wait_for(training.device)
        return 1000 * (time.perf_counter() - started) / config.steps_at_once

    return steps


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_pretraining(config: GpuSpeed, clock: Clock) -> dict[str, list[float]]:
    """Milliseconds a step, of each turn, by name."""
    with tempfile.TemporaryDirectory() as folder:
        store = random_frames(Path(folder))
        chosen = {**PRETRAINING, **(COMPILED if config.compiled else {})}
        kinds = {name: steps_of(config, store, settings) for name, settings in chosen.items()}
        for steps in kinds.values():
            steps()
        return in_turns(kinds, config.turns, lambda: clock.allows(SHARE_OF_PRETRAINING))


def detections_of(detector: KeypointDetector, batches: list[np.ndarray]) -> Callable[[], float]:
    """What detects in all batches, and says how many ms one took."""

    def detect() -> float:
        started = time.perf_counter()
        for batch in batches:
            detector.detect(batch)
        return 1000 * (time.perf_counter() - started) / len(batches)

    return detect


def measure_detectors(config: GpuSpeed, clock: Clock) -> dict[str, list[float]]:
    """Milliseconds a call, of each turn, by name."""
    frames = played_frames(GAME, FRAMES_AT_ONCE * CALLS, seed=0)
    kinds = {}
    for count in (1, FRAMES_AT_ONCE):
        batches = np.split(frames[: count * CALLS], CALLS)
        for name, settings in DETECTORS.items():
            device = "cpu" if "streaming" in settings else config.device
            detector = KeypointDetector(CHECKPOINT, readout="peaks", **{"device": device, **settings})
            kinds[f"{count} frame(s), {name}"] = detections_of(detector, batches)
    for detect in kinds.values():
        detect()
    return in_turns(kinds, config.turns, lambda: clock.allows(SHARE_OF_DETECTORS))


def measure_agents(config: GpuSpeed, clock: Clock) -> dict[str, list[float]]:
    """Steps a second of acting and learning, of each turn, by name."""
    with ExitStack() as opened:
        ready: dict[str, Callable[[], float]] = {}
        for name, make in agents(config).items():
            if ready and not clock.allows():
                break
            agent = make()
            opened.enter_context(closing(agent.get_env()))  # type: ignore[type-var]
            # More than learning_starts, so that updates are captured before the first turn.
            learn(agent, 2 * SMALL["learning_starts"])
            ready[name] = lambda agent=agent: turn(agent, config.turn_s)  # type: ignore[misc]
        return in_turns(ready, config.turns, clock.allows)


def in_turns(kinds: dict[str, Callable[[], float]], turns: int, has_time: Callable[[], bool]) -> dict[str, list[float]]:
    """What each gives in its turns, of which the first are made in any case and others while there is time for all."""
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(turns):
        if number and not has_time():
            break
        for name, kind in kinds.items():
            found[name].append(kind())
    return found


def tables(result: dict[str, Any]) -> list[str]:
    """The result as Markdown."""
    steps, calls = (
        [
            [name, f"{statistics.median(ms):.1f}", ", ".join(f"{value:.1f}" for value in ms)]
            for name, ms in result[part].items()
        ]
        for part in ("pretraining_ms", "detectors_ms")
    )
    of_dqn = result["agents"][REFERENCE]
    rows = [
        [
            name,
            f"{statistics.median(speeds):.0f}",
            f"{statistics.median(own / dqn for own, dqn in zip(speeds, of_dqn, strict=True)):.2f}",
            ", ".join(f"{speed:.0f}" for speed in speeds),
        ]
        for name, speeds in result["agents"].items()
    ]
    return [
        f"{result['card']}, {result['threads']} thread(s), {result['seconds']:.0f} s in all, commit {result['commit']}",
        "",
        *table(["a step of pretraining, 32 images or 64 pairs", "ms", "of each turn"], steps),
        "",
        *table(["a call of a detector of peaks", "ms", "of each turn"], calls),
        "",
        *table(["acting and learning", "steps/s", "of DQN's", "of each turn"], rows),
    ]


@freed_memory_kept()
def main(config: GpuSpeed) -> None:
    """Measure, print and write."""
    clock = Clock(config.most_s)
    torch.set_num_threads(config.threads)
    device = resolve_device(config.device)
    made_by = provenance()
    result = {
        "game": GAME,
        "threads": config.threads,
        "device": str(device),
        "card": torch.cuda.get_device_name(device) if device.type == "cuda" else made_by["machine"]["cpu"],
        "environments": config.environments,
        "pretraining_ms": measure_pretraining(config, clock),
        "detectors_ms": measure_detectors(config, clock),
        "agents": measure_agents(config, clock),
        "seconds": clock.spent_s,
        **made_by,
    }
    write_json(config.out, result)
    print("\n".join(tables(result)))
    print(config.out)


def command() -> None:
    """The command line."""
    run_command("speed.gpu", GpuSpeed, main)


if __name__ == "__main__":
    command()
