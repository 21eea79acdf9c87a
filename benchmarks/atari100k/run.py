"""The 100,000-step Atari protocol of the PermaKey paper's tables 1 to 3, and controls that the paper lacks.

    python -m benchmarks.atari100k --games MsPacman --methods permakey-gnn --seeds 3 --preset paper
    python -m benchmarks.atari100k --methods permakey-peaks-gnn --preset strong
    python -m benchmarks.atari100k --methods grid-gnn true-positions-gnn --games MsPacman --backend ray --address auto
    python -m benchmarks.atari100k.report

A run trains one agent for 100,000 steps (400,000 frames), validates it every 10,000 on 10 games (cut after 4,500 steps:
an early policy can be stuck at a safe place for half an hour), and tests the checkpoint that was best there: 10 whole
games without exploration on each of 10 environment seeds that neither training nor validation saw, every score kept. It
writes one JSON file and is not done again once that is there. A run that was killed goes on from its last checkpoint
when the same command is given again (SB3's DQN and QRDQN begin anew).

Seeds: training has the run's own, from 0; validation 1,000,000 on; the test 2,000,000 on, for all runs the same, as the
paper's statistic needs it. Settings are chosen by validation alone: `--test-episodes 0` leaves the test out,
`--first-seed` takes other training seeds than the final runs have, and `--results` keeps the files apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from benchmarks.atari100k.checkpoints import Checkpoint, WantedCheckpoint, find_checkpoint, pretrain, require_checkpoint
from benchmarks.atari100k.methods import METHODS, PRESETS
from benchmarks.atari100k.report import RESULTS, ReportConfig, write_report
from benchmarks.atari100k.runs import do_task
from benchmarks.atari100k.tables import all_runs_table, group_runs
from benchmarks.atari100k.tasks import Run, Schedule, Task, check_settings, finished, make_run, stores_images
from benchmarks.harness.command import run_command
from benchmarks.harness.pool import Pool, print_outcomes
from sb3_permakey.envs.atari import atari_env_id, plain_game_name
from sb3_permakey.provenance import command_line

GAMES = ("BattleZone", "MsPacman", "Seaquest", "Frostbite")
MEMORY_BYTES = {True: 5 * 10**9, False: 2 * 10**9}
"""What a run takes, by whether its replay buffer holds images."""


@dataclass(frozen=True)
class Atari100kBenchmark:
    """Train and test agents on Atari games, then write tables and pictures."""

    games: tuple[str, ...] = GAMES
    """Games."""
    methods: tuple[str, ...] = ("permakey-gnn",)
    """Methods of `benchmarks.atari100k.methods`."""
    preset: str = "paper"
    """Settings of the recurrent agent: paper or strong."""
    seeds: int = 3
    """Runs of each method on each game."""
    first_seed: int = 0
    """Seed of the first."""
    noise: tuple[Literal["clean", "both"], ...] = ("clean",)
    """clean: the game's frames. both: with a horizontal and a vertical bar."""
    keypoints: tuple[int, ...] = ()
    """Numbers of keypoints; empty: the paper's for each game."""
    schedule: Annotated[Schedule, tyro.conf.arg(name="")] = field(default_factory=Schedule)
    """How long a run trains, and how it is judged."""
    settings: tuple[str, ...] = ()
    """Settings that differ from the preset's, such as learning_rate=1e-4 or policy_kwargs.dueling=False."""
    novelty: float | None = None
    """Scale of the bonus, in training alone, for keypoints where none of their kind was; empty: the preset's."""
    pretrain: bool = False
    """Train the keypoint checkpoints that are missing."""
    folder: Path = Path("runs/atari100k")
    """Where runs keep their models and checkpoints; on a cluster a folder that all machines share."""
    results: Path = RESULTS
    """Where the JSON files go, shared like the other folder; the tables are beside it."""
    pictures: Path | None = None
    """Folder of the pictures; empty: docs, and of other results than the committed ones the folder above them."""
    pool: Annotated[Pool, tyro.conf.arg(name="")] = field(default_factory=Pool)
    """Where runs run, and how many at once."""
    device: str = "auto"
    """Where to train."""

    def __post_init__(self) -> None:
        for kind, names, known in (("method", self.methods, METHODS), ("preset", (self.preset,), PRESETS)):
            unknown = [name for name in names if name not in known]
            if unknown:
                raise ValueError(f"unknown {kind} {unknown[0]!r}; there are {', '.join(known)}")
        if self.seeds < 1:
            raise ValueError(f"seeds must be at least 1, not {self.seeds}")


def make_tasks(benchmark: Atari100kBenchmark) -> list[Task]:
    """All runs, seed by seed, with the checkpoints that they need.

    :raises CheckpointError: when one is missing and is not to be trained
    :raises ValueError: for games, settings or numbers of keypoints that do not exist
    """
    runs = [
        make_run(plain_game_name(atari_env_id(game)), method, benchmark.preset, noise, keypoints, seed)
        for seed, noise, keypoints, game, method in itertools.product(
            range(benchmark.first_seed, benchmark.first_seed + benchmark.seeds),
            benchmark.noise,
            benchmark.keypoints or (None,),
            benchmark.games,
            benchmark.methods,
        )
    ]
    checkpoints: dict[WantedCheckpoint | None, Checkpoint | None] = {None: None}
    for wanted in dict.fromkeys(run.wanted_checkpoint for run in runs):
        if wanted is not None:
            missing = benchmark.pretrain and find_checkpoint(wanted) is None
            checkpoints[wanted] = pretrain(wanted) if missing else require_checkpoint(wanted)
    tasks = [
        Task(
            run=run,
            schedule=benchmark.schedule,
            overrides=benchmark.settings,
            novelty=novelty_of(benchmark.novelty, run),
            checkpoint=checkpoints[run.wanted_checkpoint],
            folder=benchmark.folder.resolve(),
            results=benchmark.results.resolve(),
            device=benchmark.device,
            command=command_line(),
        )
        for run in dict.fromkeys(runs)
    ]
    for task in tasks:
        check_settings(task)
    return tasks


def novelty_of(wanted: float | None, run: Run) -> float:
    """The scale of a run's bonus for keypoints in new places; 0 without keypoints."""
    if run.wanted_checkpoint is None or run.preset is None:
        return 0.0
    return PRESETS[run.preset].novelty if wanted is None else wanted


def memory_of(tasks: Sequence[Task]) -> int:
    """Bytes that the largest of these runs takes."""
    return MEMORY_BYTES[any(map(stores_images, tasks))]


def main(benchmark: Atari100kBenchmark) -> None:
    """Do the runs that are not done, then write tables and pictures, and print the table of these runs.

    :raises SystemExit: when runs failed, after all others are done
    """
    tasks = make_tasks(benchmark)
    todo = [task for task in tasks if finished(task) is None]
    try:
        outcomes = benchmark.pool.run(do_task, todo, memory_bytes=memory_of(tasks), device=benchmark.device)
        print_outcomes(outcomes if todo else (), lambda task: task.run.name)
    finally:
        pictures = benchmark.pictures or (Path("docs") if benchmark.results == RESULTS else benchmark.results.parent)
        write_report(ReportConfig(benchmark.results, benchmark.results.with_suffix(".md"), pictures))
        done = [result for result in map(finished, tasks) if result is not None]
        print("\n".join(all_runs_table(group_runs(done))))


def command() -> None:
    """The command line."""
    run_command("atari100k", Atari100kBenchmark, main)


if __name__ == "__main__":
    command()
