import json

import numpy as np
import pytest

from benchmarks.memory import run as memory
from benchmarks.memory.agents import AGENTS, RECURRENT, STATES
from benchmarks.memory.run import MemoryBenchmark, Run, do_run, is_done, is_of_interest, main, make_envs, wanted_runs
from benchmarks.memory.tasks import TASKS

pytestmark = pytest.mark.usefixtures("keep_threads")


@pytest.fixture
def benchmark_of(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "VALIDATION_EPISODES", 3)

    def make(**settings):
        places = {"folder": tmp_path / "runs", "results": tmp_path / "memory", "picture": tmp_path / "memory.png"}
        return MemoryBenchmark(**{"steps": 1200, **places, **settings})

    return make


@pytest.mark.parametrize("name", AGENTS)
def test_agents_can_be_made_for_every_task(name):
    agent = AGENTS[name]
    for task in (TASKS[task] for task in TASKS if is_of_interest(task, name)):
        envs = make_envs(task, agent, agent.num_envs(task), 0, training=True)
        model = agent.algorithm(agent.policy, envs, device="cpu", **agent.arguments(task))
        action, _ = model.predict(envs.reset())
        assert action.shape == (envs.num_envs,)


def test_recurrent_agents_of_a_family_differ_in_nothing_but_states_and_quantiles():
    task = TASKS["tmaze-30"]
    for name in ("recurrent-dqn", "recurrent-qrdqn"):
        for state, expected in STATES.items():
            settings = dict(AGENTS[f"{name}-{state}"].settings(task))
            quantiles = settings["policy_kwargs"].get("n_quantiles")
            assert (quantiles is not None) == (name == "recurrent-qrdqn")
            policy = {key: value for key, value in settings["policy_kwargs"].items() if key != "n_quantiles"}
            assert {**settings, "policy_kwargs": policy} == {**RECURRENT["tmaze"], **expected}


@pytest.mark.parametrize("agent", ["recurrent-dqn-burn-in", "recurrent-qrdqn-stored", "recurrent-ppo", "dqn-stack"])
def test_a_run_writes_what_it_measured(agent, benchmark_of):
    benchmark, run = benchmark_of(), Run("tmaze-10", agent, 1)
    assert not is_done(run, benchmark)
    do_run(run, benchmark)
    result = json.loads((benchmark.results / f"{run.name}.json").read_text())
    assert (result["task"], result["agent"], result["seed"], result["steps"]) == ("tmaze-10", agent, 1, 1200)
    assert len(result["curve"]["steps"]) >= memory.VALIDATIONS - 1
    assert len(result["curve"]["success"]) == len(result["curve"]["mean_return"]) == len(result["curve"]["steps"])
    assert len(result["test"]["returns"]) == 100
    assert result["test"]["success"] == pytest.approx(np.mean(result["test"]["returns"]))
    assert is_done(run, benchmark)


def test_a_file_with_other_settings_is_an_error(benchmark_of):
    run = Run("tmaze-10", "dqn", 0)
    do_run(run, benchmark_of(steps=100))
    assert is_done(run, benchmark_of(steps=100))
    with pytest.raises(ValueError, match="holds a run with other steps"):
        is_done(run, benchmark_of(steps=200))


def test_one_command_makes_table_and_picture_and_does_nothing_twice(benchmark_of, capsys):
    benchmark = benchmark_of(tasks=("tmaze-10",), agents=("dqn",), seeds=(0,), steps=20)
    main(benchmark)
    assert "tmaze-10-dqn-0: return" in capsys.readouterr().out
    written = benchmark.results / "tmaze-10-dqn-0.json"
    before = written.stat().st_mtime_ns
    assert "| DQN |" in benchmark.results.with_suffix(".md").read_text()
    assert benchmark.picture.read_bytes().startswith(b"\x89PNG")
    main(benchmark)
    assert written.stat().st_mtime_ns == before


@pytest.mark.parametrize(("agent", "scale"), [("dqn", 0.1), ("recurrent-dqn-burn-in", 0.03)])
def test_training_sees_scaled_rewards_and_evaluation_the_tasks_own(agent, scale):
    for training, reward in ((True, scale), (False, 1.0)):
        envs = make_envs(TASKS["cartpole"], AGENTS[agent], 2, 0, training=training)
        envs.reset()
        assert envs.step(np.zeros(2, int))[1] == pytest.approx([reward, reward])


def test_stacked_frames_are_side_by_side():
    envs = make_envs(TASKS["cartpole"], AGENTS["dqn-stack"], 1, 0, training=False)
    first = envs.reset()
    second, *_ = envs.step(np.zeros(1, int))
    assert first.shape == (1, 8)
    assert second[0, 4:6] == pytest.approx(first[0, 6:])


def test_training_validation_and_test_seeds_never_meet():
    seeds = [
        first + memory.SEEDS_APART * seed + env
        for first in (memory.FIRST_VALIDATION_SEED, memory.FIRST_TEST_SEED)
        for seed in range(100)
        for env in range(memory.EVALUATION_ENVS)
    ]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) > 100 + max(settings.get("n_envs", 1) for settings in RECURRENT.values())


def test_whole_episodes_only_where_they_are_longer_than_windows():
    whole = {run.task for run in wanted_runs(MemoryBenchmark(seeds=(0,))) if run.agent == "recurrent-dqn-whole"}
    assert whole == {"tmaze-30"}
    assert AGENTS["recurrent-dqn-whole"].settings(TASKS["tmaze-30"])["sequence_length"] == 31


def test_where_no_memory_is_needed_agents_without_one_are_compared():
    runs = wanted_runs(MemoryBenchmark(seeds=(0,)))
    assert {run.agent for run in runs if run.task == "cartpole-v1"} == {"rainbow", "dqn"}
    assert {run.task for run in runs if run.agent == "rainbow"} == {"cartpole-v1"}
    assert {run.task for run in runs if run.agent == "dqn"} == set(TASKS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": ("maze",)}, "unknown task 'maze'; there are cartpole"),
        ({"agents": ("ppo",)}, "unknown agent 'ppo'"),
        ({"steps": 3}, "at least 20"),
    ],
)
def test_bad_input_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        MemoryBenchmark(**settings)
