"""From an environment of one's own to the score of an agent, by the commands alone."""

import json
import re
import shlex
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sb3_permakey.envs.own import make_own_env
from sb3_permakey.frames.store import FrameStore
from sb3_permakey.keypoints.checkpoint import checkpoint_metadata
from sb3_permakey.play import evaluation
from sb3_permakey.play.collect import CollectConfig, collect
from sb3_permakey.play.saved_agents import load_agent
from sb3_permakey.training.run import TrainConfig, make_envs, validation_envs

ROOT = Path(__file__).parents[2]
ENV = "catching:Catching"
TINY = {
    "--frames": "60",
    "--num-keypoints": "3",
    "--max-steps": "1",
    "--steps": "28",
    "--learning-starts": "20",
}
"""Values of the guide's numbers here."""
SHORT = ("--batch-size", 2, "--validate-every", 24, "--validation-episodes", 1, "--num-envs", 2)
QUIET = ("--no-tensorboard", "--no-progress", "--reward-scale", 0.5)
MORE = {
    "pretrain": ("--batch-size", 4),
    "show": ("--first", 0),
    "train": (*SHORT, *QUIET),
    "evaluate": ("--seeds", 3, "--video", "first.mp4"),
}


@pytest.fixture
def printed(run, toys, tmp_path, monkeypatch):
    """Runs a command line in an empty folder; its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)

    def printed(*arguments) -> tuple[int, str]:
        code, output, errors = run(*arguments)
        return code, output + errors

    return printed


def commands_of_the_guide() -> list[list[str]]:
    """The commands of docs/own_environment.md that go from the environment to an agent's scores, with tiny numbers."""
    text = (ROOT / "docs/own_environment.md").read_text().partition("## From the command line")[2].partition("\n## ")[0]
    commands = [shlex.split(line)[1:] for line in re.findall(r"(?m)^sb3-permakey .*$", text)]
    return [
        [TINY[flag] if value.isdigit() and flag in TINY else value for flag, value in pairwise(["", *command])]
        for command in commands
    ]


def test_the_guides_whole_way(printed):
    outputs = {}
    for name, *flags in commands_of_the_guide():
        code, outputs[name] = printed(name, *flags, *MORE.get(name, ()))
        assert code == 0, outputs[name]
    assert list(outputs) == ["collect", "pretrain", "show", "train", "evaluate"]
    store = FrameStore("frames")
    assert (store.game, store.env, store.is_atari) == (ENV, ENV, False)
    # Each command names the next one, with the environment.
    assert (
        "next: sb3-permakey pretrain --preset strong --frames frames --out catching-catching.safetensors"
        in (outputs["collect"])
    )
    assert "not scored: true objects are known of Atari games alone" in outputs["pretrain"]
    assert checkpoint_metadata("ball.safetensors")["game"] == ENV
    named = f"next: sb3-permakey train --env {ENV} --checkpoint ball.safetensors --out catching-catching-agent"
    assert named in outputs["show"]
    assert outputs["train"].count("validation after ") == 1
    assert f"next: sb3-permakey evaluate --env {ENV} --agent agent/best_model.zip" in outputs["train"]
    assert not Path("agent/tensorboard").exists()
    settings = json.loads(Path("agent/config.json").read_text())
    assert (settings["env"], settings["game"], settings["value_rescaling"]) == (ENV, None, True)
    assert load_agent("agent/best_model.zip").learned_in == ENV
    # Scores are the environment's own rewards, +1 or -1, neither of them scaled.
    assert set(np.load("agent/evaluations.npz")["results"].ravel()) <= {-1.0, 1.0}
    result = json.loads(Path("scores.json").read_text())
    assert result["game"] == ENV
    assert {game["score"] for game in result["random"]["games"]} <= {-1.0, 1.0}
    assert Path("first.mp4").stat().st_size > 500

    # What does not fit is told, in one sentence.
    train = commands_of_the_guide()[3]
    other = [part.replace(ENV, "catching:make_env") for part in train]
    code, output = printed(*other, *SHORT, *QUIET, "--steps", 36)
    assert code == 2
    assert f"holds a run with other settings (env {ENV}, not catching:make_env" in output
    flags = ("--agent", "agent/best_model.zip", "--checkpoint", "ball.safetensors", "--seeds", 3)
    with pytest.warns(UserWarning, match=f"best_model.zip learned in {ENV}, not in catching_otherwise:make_gray"):
        code, output = printed("evaluate", "--env", "catching_otherwise:make_gray", *flags, "--out", "other.json")
    assert code == 0, output
    code, output = printed("evaluate", "--game", "Seaquest", *flags, "--out", "third.json")
    assert code == 2
    assert f"plays with actions Discrete(3) and learned in {ENV}, but Seaquest has Discrete(18)" in output
    # More steps of the same run.
    code, output = printed(*train, *SHORT, *QUIET, "--steps", 36)
    assert code == 0, output
    assert load_agent("agent/final_model.zip").num_timesteps == 36


@pytest.mark.parametrize("name", ["catching:make_env", "catching_otherwise:make_gray", ENV])
def test_collection_training_validation_and_evaluation_see_the_same_frames(printed, monkeypatch, tmp_path, name):
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
    np.testing.assert_array_equal(record[0].frame, expected)
    for envs in (make_envs(config, 1, 0), validation_envs(config)):
        np.testing.assert_array_equal(envs.reset()[0].transpose(1, 2, 0), expected)


def test_random_play_takes_any_actions_and_agents_discrete_ones(printed, tmp_path):
    store = collect(CollectConfig(env="catching_otherwise:make_continuous", frames=40, out=tmp_path / "frames"))
    assert len(np.unique(np.concatenate(list(store.splits.values())), axis=0)) > 20
    again = collect(CollectConfig(env="catching_otherwise:make_continuous", frames=40, out=tmp_path / "again"))
    np.testing.assert_array_equal(store.splits["train"], again.splits["train"])
    code, output = printed("train", "--env", "catching_otherwise:make_continuous", "--out", "agent")
    assert code == 2
    assert "catching_otherwise:make_continuous has continuous actions Box(-1.0, 1.0, (1,), float32): agents" in output
    assert not Path("agent").exists()


@pytest.mark.parametrize("command", ["collect", "train", "evaluate"])
def test_game_or_env(printed, command):
    flags = ("--out", "x", *(("--agent", "a.zip") if command == "evaluate" else ()))
    assert printed(command, *flags) == (2, "sb3-permakey: give one of game, env, not none\n")
    given = ("--game", "Pong", "--env", ENV)
    assert printed(command, *flags, *given) == (2, "sb3-permakey: give one of game, env, not game and env\n")


def test_pretrain_collects_of_an_env(printed):
    flags = ("--collect-frames", 40, "--batch-size", 4, "--max-steps", 1, "--num-keypoints", 3)
    code, output = printed("pretrain", "--env", "catching:make_env", "--out", "k.safetensors", *flags)
    assert code == 0, output
    assert FrameStore("k.frames").env == "catching:make_env"
    code, output = printed("collect", "--env", "catching:make_env", "--policy", "minari:atari/x-v0", "--out", "f")
    assert (code, output) == (2, "sb3-permakey: recordings are of Atari games, not of an env\n")
    code, output = printed("train", "--game", "Pong", "--reward-scale", 2, "--out", "agent")
    assert (code, output) == (2, "sb3-permakey: reward_scale is of an env: a game's rewards are clipped\n")
