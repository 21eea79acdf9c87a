"""Recurrent agents on tasks that need memory, against agents without recurrence and RecurrentPPO.

    python -m benchmarks.memory --workers 2
    python -m benchmarks.memory --tasks tmaze-30 --agents recurrent-dqn-zero recurrent-dqn-stored --seeds 0

Each run trains one agent on one CPU thread and validates it on 20 episodes at each twentieth of its steps; the
checkpoint with the best mean return then plays new episodes, 20 of CartPole and 100 of the others. A run writes one
JSON file, and is not done again once that is there; at the end the table and the curves are drawn from all files.
Evaluation sees the tasks' own rewards.
"""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack

from benchmarks.harness.command import run_command
from benchmarks.harness.pool import Pool, print_outcomes
from benchmarks.memory.agents import AGENTS, RECURRENT, STEPS, WITHOUT_MEMORY, Agent
from benchmarks.memory.report import PICTURE, RESULTS, ReportConfig, write_report
from benchmarks.memory.tasks import TASKS, Task
from sb3_permakey.files import write_json
from sb3_permakey.provenance import provenance

VALIDATIONS, VALIDATION_EPISODES = 20, 20
EVALUATION_ENVS = 5
FIRST_VALIDATION_SEED, FIRST_TEST_SEED, SEEDS_APART = 1_000_000, 2_000_000, 1000
"""Evaluations of the runs lie this far apart; training's seeds are the runs' own, from 0."""


@dataclass(frozen=True)
class MemoryBenchmark:
    """Train and evaluate agents on tasks that need memory, then draw table and curves."""

    tasks: tuple[str, ...] = tuple(TASKS)
    """Tasks."""
    agents: tuple[str, ...] = tuple(AGENTS)
    """Agents."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of weights, exploration and environments."""
    steps: int | None = None
    """Environment steps of a run; empty: each task's own."""
    folder: Path = Path("runs/memory")
    """Where the best checkpoints go."""
    results: Path = RESULTS
    """Where the JSON files go; the table is beside this folder."""
    picture: Path | None = None
    """Where the curves go; empty: docs/memory.png, and of other results than the committed ones beside their folder."""
    pool: Annotated[Pool, tyro.conf.arg(name="")] = field(default_factory=lambda: Pool(workers=1, threads=1))
    """Where runs run, and how many at once."""

    def __post_init__(self) -> None:
        for kind, names, known in (("task", self.tasks, TASKS), ("agent", self.agents, AGENTS)):
            unknown = [name for name in names if name not in known]
            if unknown:
                raise ValueError(f"unknown {kind} {unknown[0]!r}; there are {', '.join(known)}")
        if self.steps is not None and self.steps < VALIDATIONS:
            raise ValueError(f"steps must be at least {VALIDATIONS}, one for each validation, not {self.steps}")


@dataclass(frozen=True)
class Run:
    """One agent's training on one task."""

    task: str
    agent: str
    seed: int

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"{self.task}-{self.agent}-{self.seed}"


def wanted_runs(benchmark: MemoryBenchmark) -> list[Run]:
    """All runs, seed by seed.

    Whole episodes only where they are longer than the family's windows; where no memory is needed, agents without one.
    """
    runs = itertools.product(benchmark.seeds, benchmark.tasks, benchmark.agents)
    return [Run(task, agent, seed) for seed, task, agent in runs if is_of_interest(task, agent)]


def is_of_interest(task_name: str, agent: str) -> bool:
    """Whether an agent is compared on a task."""
    task = TASKS[task_name]
    if task.family not in RECURRENT:
        return agent in WITHOUT_MEMORY
    if agent.endswith("-whole"):
        return task.family != "cartpole" and task.episode_steps > RECURRENT[task.family]["sequence_length"]
    return agent != "rainbow"


def description(run: Run, benchmark: MemoryBenchmark) -> dict[str, Any]:
    """What a run is, as its JSON file has it."""
    task, agent = TASKS[run.task], AGENTS[run.agent]
    return {
        "task": run.task,
        "agent": run.agent,
        "seed": run.seed,
        "steps": benchmark.steps or STEPS[task.family],
        "reward_scale": agent.reward_scale(task),
        "settings": json.loads(json.dumps(agent.settings(task), default=_class_name)),
    }


def _class_name(value: Any) -> str:
    return value.__name__


def is_done(run: Run, benchmark: MemoryBenchmark) -> bool:
    """Whether the run's result is there.

    :raises ValueError: when the file holds a run with other settings
    """
    path = benchmark.results / f"{run.name}.json"
    if not path.exists():
        return False
    found = json.loads(path.read_text())
    other = [name for name, value in description(run, benchmark).items() if found.get(name) != value]
    if other:
        raise ValueError(f"{path} holds a run with other {', '.join(other)}; move it away or give another --results")
    return True


def make_envs(task: Task, agent: Agent, count: int, seed: int, *, training: bool) -> VecEnv:
    """Environments of a task, as the agent sees them; training's have scaled rewards."""
    scale = agent.reward_scale(task)

    def make() -> gym.Env:
        env = task.make()
        return gym.wrappers.TransformReward(env, lambda reward: scale * float(reward)) if training else env

    envs = make_vec_env(make, count, seed=seed)
    return VecFrameStack(envs, agent.stacked_frames) if agent.stacked_frames > 1 else envs


def do_run(run: Run, benchmark: MemoryBenchmark) -> str:
    """Train, evaluate the best checkpoint, write the result; a line about it."""
    task, agent = TASKS[run.task], AGENTS[run.agent]
    described = description(run, benchmark)
    num_envs, steps = agent.num_envs(task), described["steps"]
    folder = benchmark.folder / run.name

    def evaluation_envs(first_seed: int) -> VecEnv:
        return make_envs(task, agent, EVALUATION_ENVS, first_seed + SEEDS_APART * run.seed, training=False)

    started = time.monotonic()
    envs = make_envs(task, agent, num_envs, run.seed, training=True)
    model = agent.algorithm(agent.policy, envs, seed=run.seed, device="cpu", **agent.arguments(task))
    callback = EvalCallback(
        evaluation_envs(FIRST_VALIDATION_SEED),
        n_eval_episodes=VALIDATION_EPISODES,
        eval_freq=max(steps // VALIDATIONS // num_envs, 1),
        best_model_save_path=str(folder),
        log_path=str(folder),
        verbose=0,
    )
    model.learn(steps, callback=callback)
    minutes = (time.monotonic() - started) / 60
    best = agent.algorithm.load(folder / "best_model.zip", device="cpu")
    tested, _ = evaluate_policy(
        best, evaluation_envs(FIRST_TEST_SEED), n_eval_episodes=task.test_episodes, return_episode_rewards=True
    )
    validated = np.array(callback.evaluations_results)
    result = {
        **described,
        "curve": {
            "steps": [int(step) for step in callback.evaluations_timesteps],
            "mean_return": validated.mean(axis=1).tolist(),
            "success": task.success(validated).mean(axis=1).tolist(),
        },
        "test": {"returns": tested, **measures(task, np.array(tested))},
        "training": {"minutes": minutes, "threads": torch.get_num_threads()},
        **provenance(),
    }
    write_json(benchmark.results / f"{run.name}.json", result)
    test = result["test"]
    return f"{run.name}: return {test['mean_return']:.2f}, success {test['success']:.2f}, {minutes:.1f} min"


def measures(task: Task, returns: np.ndarray) -> dict[str, float]:
    """Mean return and success rate of episodes with these returns (E,)."""
    return {"mean_return": float(returns.mean()), "success": float(task.success(returns).mean())}


def main(benchmark: MemoryBenchmark) -> None:
    """Do the runs that are not done, then draw table and curves."""
    todo = [run for run in wanted_runs(benchmark) if not is_done(run, benchmark)]
    work = partial(do_run, benchmark=benchmark)
    try:
        print_outcomes(benchmark.pool.run(work, todo), lambda run: run.name)
    finally:
        beside = PICTURE if benchmark.results == RESULTS else benchmark.results.with_suffix(".png")
        table = benchmark.results.with_suffix(".md")
        write_report(ReportConfig(benchmark.results, table, benchmark.picture or beside))


def command() -> None:
    """The command line."""
    run_command("memory", MemoryBenchmark, main)


if __name__ == "__main__":
    command()
