"""Runs of a few dozen steps, for the tests of `benchmarks.atari100k`."""

from __future__ import annotations

from pathlib import Path

from conftest import NUM_KEYPOINTS

from benchmarks.atari100k.checkpoints import Checkpoint
from benchmarks.atari100k.methods import METHODS, preset_of
from benchmarks.atari100k.tasks import Run, Schedule, Task

TINY_AGENT = ("learning_starts=10", "buffer_size=100", "batch_size=2")
TINY_SCHEDULE = {"steps": 40, "validate_every": 20, "validation_episodes": 2, "test_seeds": 3, "test_episodes": 2}


def tiny_task(
    folder: Path, checkpoint: Path, method_name: str, *, preset="paper", seed=0, overrides=TINY_AGENT, **schedule
) -> Task:
    """A task with the small model's checkpoint."""
    method = METHODS[method_name]
    return Task(
        run=Run(
            game="MsPacman",
            method=method_name,
            preset=preset_of(method_name, preset),
            noise="clean",
            num_keypoints=NUM_KEYPOINTS if method.checkpoint else None,
            seed=seed,
        ),
        schedule=Schedule(**{**TINY_SCHEDULE, **schedule}),
        overrides=overrides,
        checkpoint=Checkpoint(checkpoint, 1.5) if method.checkpoint else None,
        folder=folder / "runs",
        results=folder / "results",
        device="cpu",
        save_every=20,
    )
