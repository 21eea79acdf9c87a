"""The one pool of the benchmarks' runs: in this process, in several local ones, or on a Ray cluster.

A run that fails does not stop the others. One whose process dies is tried again; where runs keep checkpoints, it goes
on where it was. On a cluster that takes a folder which all machines share.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from stable_baselines3.common.utils import get_device

from sb3_permakey.extras import missing_package

ATTEMPTS = 4
"""How often a run is tried whose process dies."""
SHARED_OUT = 0.9
"""Part of a GPU's memory that runs share out among them; the rest is what CUDA takes for each process."""


class Outcome(NamedTuple):
    """How a task ended.

    :param task: the task
    :param result: what its function returned, of a run a line to print; None when it failed
    :param error: why it failed; None when it did not
    """

    task: Any
    result: Any
    error: BaseException | None


Function = Callable[[Any], Any]


@dataclass(frozen=True)
class Pool:
    """Where a benchmark's runs run, and how many at once."""

    backend: Literal["local", "ray"] = "local"
    """local: on this machine. ray: a task of Ray for each run."""
    workers: int | None = None
    """Local runs at once, each in its own process; empty: on a CPU one for each core, if memory allows; else 1.
    Of several on one GPU each gets its part of its memory."""
    threads: int | None = None
    """CPU threads of a run; empty: the cores shared out among the workers; on Ray 1."""
    address: str | None = None
    """Address of the Ray cluster; empty: a local Ray."""
    gpus: float = 0.0
    """GPUs of a run on Ray, may be a part of one."""

    def __post_init__(self) -> None:
        for name in ("workers", "threads"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"{name} must be at least 1, not {number}")

    def workers_for(self, count: int, memory_bytes: int, device: str) -> int:
        """Local processes for so many runs: two of one thread are faster than one of two.

        :param count: runs
        :param memory_bytes: what the largest run takes
        :param device: where they compute
        """
        if self.workers is not None:
            return self.workers
        if get_device(device).type != "cpu":
            return 1
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
        return max(min(count, os.cpu_count() or 1, memory // max(memory_bytes, 1)), 1)

    def threads_for(self, workers: int) -> int | None:
        """CPU threads of a run, of which `workers` run at once; None: as many as torch takes."""
        if self.threads is not None:
            return self.threads
        return None if workers == 1 else max((os.cpu_count() or 1) // workers, 1)

    def gpu_share_for(self, workers: int) -> float | None:
        """Part of a GPU's memory that a run may take, of which `workers` run at once, or on Ray as many as `gpus` says.

        :return: None: no limit
        """
        share = self.gpus if self.backend == "ray" else 1 / workers
        return SHARED_OUT * share if 0 < share < 1 else None

    def run(
        self, function: Function, tasks: Sequence[Any], *, memory_bytes: int = 0, device: str = "auto"
    ) -> Iterator[Outcome]:
        """Do tasks; their outcomes as they end.

        :param function: importable by name
        :param tasks: its arguments
        :param memory_bytes: what the largest task takes
        :param device: where they compute
        """
        if self.backend == "ray":
            threads = self.threads or 1
            return on_ray(
                partial(_within_limits, function, threads, self.gpu_share_for(1), device),
                tasks,
                address=self.address,
                threads=threads,
                gpus=self.gpus,
                memory_bytes=memory_bytes,
            )
        workers = self.workers_for(len(tasks), memory_bytes, device)
        own_threads = self.threads_for(workers)
        work = partial(_within_limits, function, own_threads, self.gpu_share_for(workers), device)
        if workers == 1:
            return in_this_process(work, tasks)
        return in_processes(work, tasks, workers, own_threads or 1)


def _within_limits(function: Function, threads: int | None, gpu_share: float | None, device: str, task: Any) -> Any:
    """Do a task with so many CPU threads and, where it computes on a GPU, no more than its part of the memory there."""
    if threads is not None:
        torch.set_num_threads(threads)
    if gpu_share is not None and get_device(device).type == "cuda":
        # By number, where None stands for the one in use: torch takes no "cuda" here.
        torch.cuda.set_per_process_memory_fraction(gpu_share, get_device(device).index)
    return function(task)


def print_outcomes(outcomes: Iterable[Outcome], name: Callable[[Any], str]) -> None:
    """Print the tasks' lines as they end.

    :param outcomes: of the functions below
    :param name: a task's name
    :raises SystemExit: when tasks failed, after all others are done
    """
    count, failed = 0, []
    for outcome in outcomes:
        count += 1
        if outcome.error is None:
            print(outcome.result, flush=True)
        else:
            failed.append(name(outcome.task))
            print(f"{failed[-1]} failed: {outcome.error!r}", flush=True)
    if failed:
        raise SystemExit(f"{len(failed)} of {count} runs failed: {', '.join(failed)}")


def in_this_process(function: Function, tasks: Sequence[Any]) -> Iterator[Outcome]:
    """Do tasks one after another."""
    for task in tasks:
        try:
            yield Outcome(task, function(task), None)
        except Exception as error:
            yield Outcome(task, None, error)


def in_processes(function: Function, tasks: Sequence[Any], workers: int, threads: int) -> Iterator[Outcome]:
    """Do tasks in several processes.

    :param function: importable by name
    :param tasks: its arguments
    :param workers: processes at once
    :param threads: CPU threads of each
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)
    left = list(tasks)
    for attempt in range(ATTEMPTS):
        died = []
        # One process that dies takes the whole pool with it, and with it the others' work since their checkpoints.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            futures = {pool.submit(function, task): task for task in left}
            for future in as_completed(futures):
                error = future.exception()
                if isinstance(error, BrokenProcessPool) and attempt + 1 < ATTEMPTS:
                    died.append(futures[future])
                else:
                    yield Outcome(futures[future], None if error else future.result(), error)
        if not died:
            return
        left = died


def on_ray(
    function: Function,
    tasks: Sequence[Any],
    *,
    address: str | None = None,
    threads: int = 1,
    gpus: float = 0.0,
    memory_bytes: int = 0,
) -> Iterator[Outcome]:
    """Do each task as one of Ray's, tried again when its worker dies.

    :param function: runs in Ray's workers
    :param tasks: its arguments
    :param address: of the cluster; None: a local Ray for the time of this call
    :param threads: CPUs of a task
    :param gpus: GPUs of a task, may be a part of one
    :param memory_bytes: memory of a task
    :raises ImportError: when Ray is not installed
    """
    try:
        import ray
    except ImportError as error:
        raise missing_package("the backend ray needs Ray", "benchmarks") from error
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    variables = {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    ray.init(address=address, runtime_env={"env_vars": variables}, log_to_driver=False)
    try:
        remote = ray.remote(function).options(
            num_cpus=threads, num_gpus=gpus, memory=memory_bytes or None, max_retries=ATTEMPTS - 1
        )
        waiting = {remote.remote(task): task for task in tasks}
        while waiting:
            done, _ = ray.wait(list(waiting))
            task = waiting.pop(done[0])
            try:
                yield Outcome(task, ray.get(done[0]), None)
            except Exception as error:
                yield Outcome(task, None, error)
    finally:
        ray.shutdown()
