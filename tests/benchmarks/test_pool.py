import json
import os
import signal
from pathlib import Path

import pytest
import torch

from benchmarks.harness import pool
from benchmarks.harness.pool import Pool, in_processes, in_this_process, on_ray, print_outcomes


def die_once(marker: Path) -> str:
    """Kills its process the first time."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{marker.name} with {os.environ['OMP_NUM_THREADS']} threads"


def fail_on_one(number: int) -> str:
    if number == 1:
        raise ValueError("one is not wanted")
    return str(number)


def always_die(_: int) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


def test_a_task_that_fails_does_not_stop_the_others():
    outcomes = list(in_this_process(fail_on_one, [0, 1, 2]))
    assert [outcome.result for outcome in outcomes] == ["0", None, "2"]
    assert str(outcomes[1].error) == "one is not wanted"


def test_failures_are_named_after_all_tasks(capsys):
    with pytest.raises(SystemExit, match="1 of 3 runs failed: number 1"):
        print_outcomes(in_this_process(fail_on_one, [0, 1, 2]), lambda number: f"number {number}")
    assert capsys.readouterr().out.splitlines() == [
        "0",
        "number 1 failed: ValueError('one is not wanted')",
        "2",
    ]
    print_outcomes([], str)


def test_processes_that_die_are_tried_again(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    outcomes = list(in_processes(die_once, [tmp_path / "a", tmp_path / "b"], 1, 1))
    assert sorted(outcome.result for outcome in outcomes) == ["a with 1 threads", "b with 1 threads"]


def test_a_process_that_always_dies_is_given_up(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(pool, "ATTEMPTS", 2)
    [outcome] = in_processes(always_die, [7], 1, 1)
    assert (outcome.task, outcome.result) == (7, None)
    assert "terminated abruptly" in str(outcome.error)


def test_ray_takes_failures_and_dead_workers(tmp_path):
    pytest.importorskip("ray")

    # Defined here, so that they travel to the workers by value.
    def work(task):
        marker, fails = task
        if fails:
            raise ValueError("not wanted")
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return os.environ["OMP_NUM_THREADS"]

    tasks = [(tmp_path / "a", False), (tmp_path / "b", True)]
    outcomes = {outcome.task[0].name: outcome for outcome in on_ray(work, tasks, threads=1, memory_bytes=10**8)}
    assert outcomes["a"].result == "1"
    assert outcomes["a"].error is None
    assert "not wanted" in str(outcomes["b"].error)


def test_a_run_whose_ray_worker_is_killed_goes_on_from_its_checkpoint(tmp_path, checkpoint):
    pytest.importorskip("ray")
    # Not above: the processes of the other tests would load it too.
    from tiny_tasks import tiny_task

    task = tiny_task(tmp_path, checkpoint, "permakey-gnn", steps=60)
    marker, tests = tmp_path / "killed", str(Path(__file__).parents[1])

    def work(task):
        import sys

        sys.path.insert(0, tests)
        from conftest import MovingSquare
        from stable_baselines3.common.monitor import Monitor

        from benchmarks.atari100k import runs, tasks
        from sb3_permakey.common.run_checkpoint import RunCheckpoint

        def on_step(callback):
            if callback.num_timesteps == 50 and not marker.exists():
                marker.write_text(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)
            return True

        def on_training_start(callback):
            start = callback.model.num_timesteps
            (tmp_path / f"start-{start}").touch()
            callback._saved_at = start

        RunCheckpoint._on_step, RunCheckpoint._on_training_start = on_step, on_training_start
        tasks.make_atari_env = lambda *args, **kwargs: Monitor(MovingSquare(5))
        return runs.do_task(task)

    [outcome] = on_ray(work, [task], threads=1)
    assert outcome.error is None
    assert marker.exists()
    assert sorted(path.name for path in tmp_path.glob("start-*")) == ["start-0", "start-40"]
    result = json.loads(task.result_path.read_text())
    assert [one["steps"] for one in result["validation"]] == [20, 40, 60]


def test_cores_and_memory_are_shared_out(monkeypatch):
    def workers(count, memory_gb, gigabytes, device="cpu", **settings):
        sizes = {"SC_PHYS_PAGES": gigabytes * 10**6, "SC_PAGE_SIZE": 1000}
        monkeypatch.setattr("os.sysconf", sizes.__getitem__)
        return Pool(**settings).workers_for(count, memory_gb * 10**9, device)

    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert workers(3, 2, 64) == 3
    assert workers(20, 2, 64) == 8
    assert workers(20, 2, 9) == 4
    assert workers(20, 5, 16) == 3
    assert workers(20, 2, 1) == 1
    assert workers(20, 0, 1) == 8
    assert workers(20, 2, 1, workers=5) == 5
    assert workers(3, 2, 64, device="meta") == 1

    assert Pool().threads_for(1) is None
    assert Pool().threads_for(3) == 2
    assert Pool().threads_for(16) == 1
    assert Pool(threads=4).threads_for(16) == 4


def test_a_pool_of_one_worker_is_this_process(keep_threads):
    torch.set_num_threads(2)
    outcomes = Pool(workers=1, threads=1).run(lambda task: (task, os.getpid(), torch.get_num_threads()), ["a"])
    assert [outcome.result for outcome in outcomes] == [("a", os.getpid(), 1)]


def test_a_pool_of_two_has_processes_of_half_the_cores(monkeypatch, tmp_path):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    outcomes = Pool(workers=2).run(die_once, [tmp_path / "a"])
    assert [outcome.result for outcome in outcomes] == ["a with 3 threads"]


def test_a_run_on_ray_has_one_thread_unless_told_otherwise(monkeypatch, keep_threads):
    def submit(function, tasks, *, threads, **resources):
        return [(threads, function(task), resources["gpus"]) for task in tasks]

    monkeypatch.setattr(pool, "on_ray", submit)

    def threads(**settings):
        return Pool(backend="ray", gpus=0.5, **settings).run(lambda _: torch.get_num_threads(), ["a", "b"])

    assert threads() == [(1, 1, 0.5), (1, 1, 0.5)]
    assert threads(threads=4) == [(4, 4, 0.5), (4, 4, 0.5)]


def shares_taken(monkeypatch, device, **settings):
    """What the tasks of a pool on this device say of a GPU's memory, in this process in place of others."""
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share, index: taken.append((share, index))
    )
    monkeypatch.setattr(pool, "in_processes", lambda function, tasks, workers, threads: map(function, tasks))
    monkeypatch.setattr(pool, "in_this_process", lambda function, tasks: map(function, tasks))
    monkeypatch.setattr(pool, "on_ray", lambda function, tasks, **resources: map(function, tasks))
    assert list(Pool(threads=1, **settings).run(str, [1], device=device)) == ["1"]
    return taken


def test_runs_on_one_gpu_share_out_its_memory(monkeypatch, keep_threads):
    assert shares_taken(monkeypatch, "cuda", workers=8) == [(0.9 / 8, None)]
    assert shares_taken(monkeypatch, "auto", workers=2) == [(0.45, None)]
    assert shares_taken(monkeypatch, "cuda:1", workers=2) == [(0.45, 1)]
    assert shares_taken(monkeypatch, "cuda", backend="ray", gpus=0.25) == [(0.225, None)]
    for alone in ({"workers": 1}, {}, {"backend": "ray", "gpus": 1.0}, {"backend": "ray"}):
        assert shares_taken(monkeypatch, "cuda", **alone) == []
    assert shares_taken(monkeypatch, "cpu", workers=8) == []


@pytest.mark.parametrize("name", ["workers", "threads"])
def test_a_pool_has_at_least_one_worker_and_thread(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        Pool(**{name: 0})
