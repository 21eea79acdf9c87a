"""From an environment of one's own to the score of an agent, by the commands alone."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from sb3_permakey.cli import main
from sb3_permakey.envs.own import make_own_env
from sb3_permakey.frames.store import FrameStore
from sb3_permakey.keypoints.checkpoint import checkpoint_metadata
from sb3_permakey.play import evaluation
from sb3_permakey.play.collect import CollectConfig, collect
from sb3_permakey.play.saved_agents import load_agent
from sb3_permakey.training.run import TrainConfig, make_envs, validation_envs

TOYS = Path(__file__).parents[1] / "toys"
ENV = "catching:Catching"
SHORT = ("--steps", 28, "--learning-starts", 20, "--batch-size", 2, "--validate-every", 24, "--validation-episodes", 1)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a command line in an empty folder; its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(TOYS), *sys.path])

    def run(*arguments) -> tuple[int, str]:
        try:
            main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        output, errors = capsys.readouterr()
        return code, output + errors

    yield run
    sys.modules.pop("catching", None)


def test_the_whole_way(run):
    code, output = run("collect", "--env", ENV, "--frames", 60, "--out", "frames")
    assert code == 0, output
    assert "next: sb3-permakey pretrain --preset strong --frames frames --out catching-catching.safetensors" in output
    store = FrameStore("frames")
    assert (store.game, store.env, store.is_atari) == (ENV, ENV, False)
    pretrain = ("pretrain", "--frames", "frames", "--out", "k.safetensors", "--batch-size", 4, "--max-steps", 2)
    code, output = run(*pretrain, "--num-keypoints", 3, "--schedule", "staged")
    assert code == 0, output
    assert "not scored: true objects are known of Atari games alone" in output
    assert checkpoint_metadata("k.safetensors")["game"] == ENV
    code, output = run("show", "--checkpoint", "k.safetensors", "--frames", "frames", "--out", "k.png")
    assert f"next: sb3-permakey train --env {ENV} --checkpoint k.safetensors --out catching-catching-agent" in output

    train = ("train", "--env", ENV, "--checkpoint", "k.safetensors", "--out", "agent")
    code, output = run(*train, *SHORT, "--num-envs", 2, "--no-tensorboard", "--no-progress", "--reward-scale", 0.5)
    assert code == 0, output
    assert output.count("validation after ") == 1
    assert f"next: sb3-permakey evaluate --env {ENV} --agent agent/best_model.zip" in output
    assert not Path("agent/tensorboard").exists()
    settings = json.loads(Path("agent/config.json").read_text())
    assert (settings["env"], settings["game"], settings["value_rescaling"]) == (ENV, None, True)
    agent = load_agent("agent/best_model.zip")
    assert agent.learned_in == ENV
    # Scores are the environment's own rewards: +1 or -1, neither of them scaled.
    assert set(np.load("agent/evaluations.npz")["results"].ravel()) <= {-1.0, 1.0}

    flags = ("--agent", "agent/best_model.zip", "--checkpoint", "k.safetensors", "--out", "scores.json", "--seeds", 3)
    code, output = run("evaluate", "--env", ENV, *flags, "--video", "first.mp4")
    assert code == 0, output
    result = json.loads(Path("scores.json").read_text())
    assert result["game"] == ENV
    assert {game["score"] for game in result["random"]["games"]} <= {-1.0, 1.0}
    assert Path("first.mp4").stat().st_size > 500

    # What does not fit is told, in one sentence.
    code, output = run("train", "--env", "catching:make_env", *train[3:], *SHORT, "--steps", 36)
    assert code == 2
    assert f"holds a run with other settings (env {ENV}, not catching:make_env" in output
    other = ("--agent", "agent/best_model.zip", "--checkpoint", "k.safetensors", "--seeds", 3)
    with pytest.warns(UserWarning, match="agent/best_model.zip learned in catching:Catching, not in catching:make_gra"):
        code, output = run("evaluate", "--env", "catching:make_gray", *other, "--out", "other.json")
    assert code == 0, output
    code, output = run("evaluate", "--game", "Seaquest", *other, "--out", "third.json")
    assert code == 2
    assert "plays with actions Discrete(3) and learned in catching:Catching, but Seaquest has Discrete(18)" in output
    # More steps of the same run.
    more = ("--num-envs", 2, "--no-tensorboard", "--no-progress", "--reward-scale", 0.5, "--steps", 36)
    code, output = run(*train, *SHORT, *more)
    assert code == 0, output
    assert load_agent("agent/final_model.zip").num_timesteps == 36


@pytest.mark.parametrize("name", ["catching:make_env", "catching:make_gray", ENV])
def test_collection_training_validation_and_evaluation_see_the_same_frames(run, monkeypatch, tmp_path, name):
    expected = make_own_env(name).reset(seed=7)[0]

    def seeded(*args, **settings):
        env = make_own_env(*args, **{**settings, "seed": None})
        original = env.reset
        env.reset = lambda **_: original(seed=7)
        return env

    monkeypatch.setattr("sb3_permakey.envs.named.make_own_env", seeded)
    store = collect(CollectConfig(env=name, frames=24, out=tmp_path / "frames"))
    config = TrainConfig(env=name, out=tmp_path / "agent")
    seen = []
    (game,) = evaluation.play_games(
        config.environment, [7], lambda frames, *_: seen.append(frames[0]) or [0], "test", record := []
    )
    assert game.steps == 7
    np.testing.assert_array_equal(store.splits["train"][0], expected)
    np.testing.assert_array_equal(seen[0], expected)
    np.testing.assert_array_equal(record[0], expected)
    for envs in (make_envs(config, 1, 0), validation_envs(config)):
        np.testing.assert_array_equal(envs.reset()[0].transpose(1, 2, 0), expected)


def test_random_play_takes_any_actions_and_agents_discrete_ones(run, tmp_path):
    store = collect(CollectConfig(env="catching:make_continuous", frames=40, out=tmp_path / "frames"))
    assert len(np.unique(np.concatenate(list(store.splits.values())), axis=0)) > 20
    again = collect(CollectConfig(env="catching:make_continuous", frames=40, out=tmp_path / "again"))
    np.testing.assert_array_equal(store.splits["train"], again.splits["train"])
    code, output = run("train", "--env", "catching:make_continuous", "--out", "agent")
    assert code == 2
    assert (
        "sb3-permakey: catching:make_continuous has continuous actions Box(-1.0, 1.0, (1,), float32): agents" in output
    )
    assert not Path("agent").exists()


@pytest.mark.parametrize("command", ["collect", "train", "evaluate"])
def test_game_or_env(run, command):
    flags = ("--out", "x", *(("--agent", "a.zip") if command == "evaluate" else ()))
    assert run(command, *flags) == (2, "sb3-permakey: give one of game, env, not none\n")
    given = ("--game", "Pong", "--env", ENV)
    assert run(command, *flags, *given) == (2, "sb3-permakey: give one of game, env, not game and env\n")


def test_pretrain_collects_of_an_env(run):
    flags = ("--collect-frames", 40, "--batch-size", 4, "--max-steps", 1, "--num-keypoints", 3)
    code, output = run("pretrain", "--env", "catching:make_env", "--out", "k.safetensors", *flags)
    assert code == 0, output
    assert FrameStore("k.frames").env == "catching:make_env"
    code, output = run("collect", "--env", "catching:make_env", "--policy", "minari:atari/x-v0", "--out", "f")
    assert (code, output) == (2, "sb3-permakey: recordings are of Atari games, not of an env\n")
    code, output = run("train", "--game", "Pong", "--reward-scale", 2, "--out", "agent")
    assert (code, output) == (2, "sb3-permakey: reward_scale is of an env: a game's rewards are clipped\n")
