"""Where the benchmarks' runs run: in this process, in several local ones, or on a Ray cluster.

A run that fails does not stop the others. One whose process dies is tried again; where runs keep checkpoints, it goes
on where it was. On a cluster that takes a folder which all machines share.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from sb3_permakey.extras import missing_package

ATTEMPTS = 4
"""How often a run is tried whose process dies."""


class Outcome(NamedTuple):
    """How a task ended.

    :param task: the task
    :param line: what its function returned; None when it failed
    :param error: why it failed; None when it did not
    """

    task: Any
    line: str | None
    error: BaseException | None


Function = Callable[[Any], str]


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
            print(outcome.line, flush=True)
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
    paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
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
