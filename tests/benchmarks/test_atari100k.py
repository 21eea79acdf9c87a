import hashlib
import json
import runpy
from dataclasses import replace
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from conftest import MovingSquare
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from tiny_tasks import tiny_task

from benchmarks.atari100k import runs, tasks
from benchmarks.atari100k.methods import METHODS, readout_of
from benchmarks.atari100k.objects import OBJECT_SLOTS
from benchmarks.atari100k.play import RandomPlayer, play_episodes
from benchmarks.atari100k.run import Atari100kBenchmark, main, make_tasks, memory_of, novelty_of
from benchmarks.atari100k.runs import do_task
from benchmarks.atari100k.tasks import Schedule, finished, make_envs, make_run
from benchmarks.harness.pool import Pool
from benchmarks.harness.results import CorruptResultWarning, read_result
from sb3_permakey.common.run_checkpoint import RunCheckpoint
from sb3_permakey.envs.novelty import VecKeypointNovelty
from sb3_permakey.files import InUseError, locked_folder
from sb3_permakey.play.evaluation import FIRST_TEST_SEED
from sb3_permakey.training.presets import PRESETS
from sb3_permakey.training.validation import BEST_MODEL, FIRST_VALIDATION_SEED

pytestmark = pytest.mark.usefixtures("keep_threads")


@pytest.fixture
def task_of(tmp_path, checkpoint):
    """Makes tiny tasks."""
    return partial(tiny_task, tmp_path, checkpoint)


@pytest.fixture
def squares(monkeypatch):
    """Games of five steps; the settings with which they were made."""
    made = []

    def make(game, **settings):
        made.append(settings)
        env = Monitor(MovingSquare(5))
        env.reset(seed=settings["seed"])
        return env

    monkeypatch.setattr(tasks, "make_atari_env", make)
    return made


@pytest.mark.parametrize("method", METHODS)
def test_every_method_sees_atari_as_its_agent_needs_it(method, task_of):
    of_objects = METHODS[method].observes == "objects"
    if METHODS[method].points == "true" or of_objects:
        pytest.importorskip("ocatari")
    envs = make_envs(task_of(method), [0, 1])
    observations = envs.reset()
    space = envs.observation_space
    if isinstance(space, spaces.Dict):
        assert {"keypoints", "features"} <= set(space.spaces)
        assert ("image" in space.spaces) == method.endswith("-cnn")
        assert ("confidence" in space.spaces) == (METHODS[method].readout == "peaks" or of_objects)
        assert observations["keypoints"].shape == (2, OBJECT_SLOTS if of_objects else 4, 2)
    else:
        assert space.shape == ((4, 84, 84) if METHODS[method].observes == "gray" else (3, 84, 84))
    observations, *_ = envs.step([0, 0])
    parts = observations.items() if isinstance(observations, dict) else [(None, observations)]
    for name, values in parts:
        assert (space if name is None else space[name]).contains(values[0])


@pytest.mark.parametrize(
    ("method", "preset"),
    [
        ("permakey-gnn", "paper"),
        ("permakey-peaks-gnn", "strong"),
        ("grid-gnn", "strong"),
        ("dqn-pixels", "paper"),
        ("rainbow-pixels", "rainbow"),
    ],
)
def test_a_run_keeps_every_score(method, preset, task_of, squares):
    task = task_of(method, preset=preset, seed=3)
    if METHODS[method].points:
        assert readout_of(METHODS[method], preset) == "peaks"
    line = do_task(task)
    assert line.startswith(f"{task.run.name}: mean test score ")
    result = read_result(task.result_path)
    assert result["seed"] == 3
    assert [one["steps"] for one in result["validation"]] == [20, 40]
    assert all(len(one["scores"]) == 2 for one in result["validation"])
    assert result["test"]["seeds"] == [FIRST_TEST_SEED, FIRST_TEST_SEED + 1, FIRST_TEST_SEED + 2]
    assert np.shape(result["test"]["scores"]) == np.shape(result["test"]["episode_steps"]) == (3, 2)
    assert np.unique(result["test"]["episode_steps"]).tolist() == [5]
    chances = {"test": (0, 0), "test_with_exploration": (0.001, 0), "test_with_sticky_actions": (0, 0.25)}
    for name, chance in chances.items():
        tested = result[name]
        assert (tested["epsilon"], tested["sticky"]) == chance
        assert tested["seeds"] == result["test"]["seeds"]
        assert np.shape(tested["scores"]) == (3, 2)
    assert [settings["sticky"] for settings in squares if settings["seed"] in result["test"]["seeds"]] == [
        sticky for _, sticky in chances.values() for _ in result["test"]["seeds"]
    ]
    best = task.place / BEST_MODEL
    assert result["policy"] == {
        "file": f"{task.run.name}/best_model.zip",
        "sha256": hashlib.sha256(best.read_bytes()).hexdigest(),
    }
    assert result["training_games"]["steps"] == list(range(5, 41, 5))
    assert len(result["training_games"]["scores"]) == 8
    assert result["settings"]["learning_starts"] == 10
    assert {"command", "commit", "versions", "machine"} <= set(result)
    assert min(result["seconds"][phase] for phase in ("training", "validation", "test")) > 0
    assert result["seconds"]["pretraining"] == (90.0 if METHODS[method].checkpoint else None)
    assert not (task.place / "run").exists()
    validated = range(FIRST_VALIDATION_SEED, FIRST_VALIDATION_SEED + 2)
    assert {settings["seed"] for settings in squares} == {3, *validated, *result["test"]["seeds"]}
    # The agent is judged on what it learned from: lives are episodes in all of them.
    assert all(settings.get("training", True) for settings in squares)
    cut = {settings["seed"] for settings in squares if settings["max_steps"] is not None}
    assert cut == set(validated)
    assert finished(task) == result
    assert do_task(task).endswith("done before")


def test_the_best_checkpoint_of_the_validations_is_tested(task_of, squares, monkeypatch):
    scores = iter([[5.0, 5.0], [9.0, 9.0], [7.0, 7.0]])
    monkeypatch.setattr(
        "sb3_permakey.training.validation.evaluate_policy", lambda *args, **kwargs: (next(scores), [5, 5])
    )
    tested = []
    played = runs.play_episodes
    monkeypatch.setattr(runs, "play_episodes", lambda player, *rest: tested.append(player) or played(player, *rest))
    do_task(task_of("recurrent-dqn-pixels", steps=36, validate_every=12))
    assert tested[0].num_timesteps == 24


def test_a_killed_run_goes_on(task_of, squares, monkeypatch):
    task = task_of("permakey-gnn", steps=60)

    def killed(callback):
        if callback.num_timesteps == 50:
            raise KeyboardInterrupt
        return True

    with monkeypatch.context() as patch:
        patch.setattr(RunCheckpoint, "_on_step", killed)
        with pytest.raises(KeyboardInterrupt):
            do_task(task)
    assert not task.result_path.exists()
    before = json.loads((task.place / "seconds.json").read_text())
    starts = []
    patched = RunCheckpoint._on_training_start
    monkeypatch.setattr(
        RunCheckpoint, "_on_training_start", lambda self: starts.append(self.num_timesteps) or patched(self)
    )
    do_task(task)
    assert starts == [40]
    result = read_result(task.result_path)
    assert [one["steps"] for one in result["validation"]] == [20, 40, 60]
    assert result["training_games"]["steps"] == list(range(5, 61, 5))
    assert result["seconds"]["training"] > before["training"]
    assert result["seconds"]["validation"] > before["validation"]


def test_a_run_killed_in_its_tests_does_not_train_again(task_of, squares, monkeypatch):
    task, test, asked = task_of("recurrent-dqn-pixels", steps=20), runs.test, []

    def counted(task, **chance):
        asked.append(chance)
        return test(task, **chance)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "test", lambda task, **chance: 1 / 0 if chance["sticky"] else counted(task, **chance))
        with pytest.raises(ZeroDivisionError):
            do_task(task)
    monkeypatch.setattr(runs, "train", lambda task: pytest.fail("trained again"))
    monkeypatch.setattr(runs, "test", counted)
    do_task(task)
    result = read_result(task.result_path)
    assert len(result["validation"]) == 1
    # Nor is what was tested before it was killed tested again.
    assert asked == list(runs.TESTS.values())
    assert [result[name]["epsilon"] for name in runs.TESTS] == [0, 0.001, 0]
    assert result["test"]["scores"]
    assert "seconds" not in result["test"]


def test_an_agent_that_is_trained_again_is_tested_again(task_of, squares, monkeypatch):
    task, test, asked = task_of("recurrent-dqn-pixels", steps=20), runs.test, []
    do_task(task)
    task.result_path.unlink()
    (task.place / "trained.json").unlink()
    monkeypatch.setattr(runs, "test", lambda task, **chance: asked.append(chance) or test(task, **chance))
    do_task(task)
    assert asked == list(runs.TESTS.values())


def test_two_processes_do_not_do_the_same_run(task_of, squares):
    task = task_of("random")
    with locked_folder(task.place), pytest.raises(InUseError, match=f"another run is writing {task.place}"):
        do_task(task)
    assert not task.result_path.exists()
    do_task(task)
    assert not (task.place / ".lock").exists()


def test_a_killed_run_does_not_go_on_with_other_settings(task_of, squares, monkeypatch):
    monkeypatch.setattr(runs, "train", lambda task: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        do_task(task_of("permakey-gnn"))
    with pytest.raises(ValueError, match="holds a run with other settings"):
        do_task(task_of("permakey-gnn", overrides=("gamma=0.9",)))


def test_a_result_with_another_schedule_is_an_error_and_a_damaged_one_is_made_again(task_of, squares):
    task = task_of("random")
    do_task(task)
    with pytest.raises(ValueError, match="holds a run with other schedule"):
        finished(task_of("random", test_episodes=1))
    content = task.result_path.read_text()
    task.result_path.write_text(content[:200])
    with pytest.warns(CorruptResultWarning, match="mspacman-random-clean-0.json is damaged"):
        do_task(task)
    assert read_result(task.result_path)["test"] == json.loads(content)["test"]


class Countdown(MovingSquare):
    """Its reward is 1 at each step; its first episode has `length` steps, each later one is a step shorter."""

    def step(self, action):
        frame, _, terminated, truncated, info = super().step(action)
        self.length -= terminated
        return frame, 1.0, terminated, truncated, info


class WatchedPlayer(RandomPlayer):
    def __init__(self):
        super().__init__(spaces.Discrete(3), 0)
        self.starts = []

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        assert deterministic
        self.starts.append(episode_start.tolist())
        return super().predict(observation, state, episode_start, deterministic)


def test_episodes_are_whole_in_order_and_as_many_in_each_environment():
    player = WatchedPlayer()
    played = play_episodes(player, DummyVecEnv([lambda: Monitor(Countdown(3)), lambda: Monitor(Countdown(6))]), 2)
    assert played == {"scores": [[3.0, 2.0], [6.0, 5.0]], "episode_steps": [[3.0, 2.0], [6.0, 5.0]]}
    assert player.starts[0] == [True, True]
    assert player.starts[3] == [True, False]
    assert player.starts[6] == [True, True]
    assert len(player.starts) == 11


class TwoLives(gym.Wrapper):
    """An episode ends in the middle of the game too; the Monitor below knows only the game."""

    def reset(self, **kwargs):
        return (self.frame, {}) if self.unwrapped.steps == 2 else self.env.reset(**kwargs)

    def step(self, action):
        self.frame, *rest, over, truncated, info = self.env.step(action)
        return self.frame, *rest, over or self.unwrapped.steps == 2, truncated, info


def test_a_life_is_an_episode_of_its_game():
    player = WatchedPlayer()
    envs = DummyVecEnv([lambda: TwoLives(Monitor(MovingSquare(4)))])
    envs.envs[0].unwrapped.steps = 0
    played = play_episodes(player, envs, 2)
    assert played["episode_steps"] == [[4.0, 4.0]]
    assert played["scores"][0] == pytest.approx(envs.envs[0].env.get_episode_rewards(), abs=1e-5)
    assert [start for (start,) in player.starts] == [True, False] * 4


def test_the_command_ends_with_the_table_and_does_nothing_twice(squares, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    config = Atari100kBenchmark(
        games=("ALE/MsPacman-v5",),
        methods=("random", "permakey-gnn"),
        seeds=2,
        schedule=Schedule(40, 20, 1, 2, 2),
        settings=("learning_starts=10", "buffer_size=100"),
        folder=tmp_path / "runs",
        results=tmp_path / "atari100k",
        pictures=tmp_path,
        pool=Pool(workers=1),
        device="cpu",
    )
    main(config)
    table = (tmp_path / "atari100k.md").read_text()
    assert "| MsPacman | PKey + GNN (paper) | 2 |" in table
    assert "| MsPacman | random policy | 2 |" in table
    assert (tmp_path / "atari100k_curves.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.count("mean test score") == 4
    main(config)
    assert "mean test score" not in capsys.readouterr().out


def test_failed_runs_are_named_at_the_end_and_the_others_done(squares, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")

    def fails(task):
        raise ValueError("no luck")

    monkeypatch.setattr(runs, "train", fails)
    config = Atari100kBenchmark(
        games=("MsPacman",),
        methods=("permakey-gnn", "random"),
        seeds=1,
        schedule=Schedule(test_seeds=1, test_episodes=1),
        folder=tmp_path / "runs",
        results=tmp_path / "atari100k",
        pictures=tmp_path,
        pool=Pool(workers=1),
    )
    with pytest.raises(SystemExit, match="1 of 2 runs failed: mspacman-permakey-gnn-paper-k7-clean-0"):
        main(config)
    assert "failed: ValueError('no luck')" in capsys.readouterr().out
    assert "| MsPacman | random policy | 1 |" in (tmp_path / "atari100k.md").read_text()


def test_images_in_the_buffer_take_more_memory():
    def memory(*methods):
        return memory_of(make_tasks(Atari100kBenchmark(games=("MsPacman",), methods=methods, seeds=1)))

    assert memory("grid-gnn") == 2 * 10**9
    assert memory("grid-gnn", "recurrent-dqn-pixels") == 5 * 10**9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"methods": ("permakey",)}, "unknown method 'permakey'; there are permakey-gnn"),
        ({"preset": "weak"}, "unknown preset 'weak'; there are paper, strong"),
        ({"seeds": 0}, "seeds must be at least 1"),
    ],
)
def test_bad_input_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Atari100kBenchmark(**settings)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--games", "MsPackman"], "unknown Atari game 'MsPackman'; the nearest name is 'MsPacman'"),
        (["--games", "MsPacman", "--settings", "algorithm=ppo"], "algorithm must be one of"),
    ],
)
def test_bad_input_ends_the_command_with_a_sentence(flags, sentence, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["atari100k", *flags])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("benchmarks.atari100k", run_name="__main__")
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith(f"atari100k: {sentence}")


def test_novelty_is_of_training_alone_and_told(task_of, squares):
    task = replace(task_of("permakey-peaks-gnn", steps=20), novelty=0.5)
    wrapped = []
    with pytest.MonkeyPatch.context() as patch:
        made = lambda *given: wrapped.append(given[1:]) or VecKeypointNovelty(*given)  # noqa: E731
        patch.setattr(runs, "VecKeypointNovelty", made)
        do_task(task)
    assert wrapped == [(0.5, task.run.seed)]
    assert read_result(task.result_path)["novelty"] == 0.5
    assert finished(task)
    with pytest.raises(ValueError, match="holds a run with other novelty"):
        finished(replace(task, novelty=0.25))
    with pytest.raises(ValueError, match="holds a run with other novelty"):
        finished(replace(task, novelty=0.0))


def test_novelty_is_the_presets_unless_told_and_of_keypoints_alone():
    def scale(method, novelty=None, preset="rainbow"):
        return novelty_of(novelty, make_run("MsPacman", method, preset, "clean", None, 0))

    assert scale("permakey-student-rainbow") == PRESETS["rainbow"].novelty
    assert scale("permakey-student-rainbow", 0.3) == 0.3
    assert scale("permakey-gnn", preset="paper") == 0
    assert scale("rainbow-pixels", 0.3) == scale("random", 0.3) == 0
