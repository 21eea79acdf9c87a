"""What commands say of wrong input: one sentence, and nothing is written."""

import re
from pathlib import Path

import pytest
import torch
from conftest import square_frames
from safetensors.torch import save_file

from sb3_permakey.envs.atari import PREPROCESSING
from sb3_permakey.frames.store import write_store
from sb3_permakey.keypoints import (
    PermaKey,
    PermaKeyConfig,
    Transporter,
    save_checkpoint,
)

SHOW = ("show", "--checkpoint", "mspacman", "--frames", "x", "--out", "y.png")


def test_pretraining_takes_frames_or_what_to_collect(refused, tmp_path):
    out = ("--out", tmp_path / "model.safetensors")
    assert "give one of frames, game, env, not none" in refused("pretrain", *out)
    assert "not game and env" in refused("pretrain", *out, "--game", "Pong", "--env", "CartPole-v1")


def test_wrong_games(refused, tmp_path):
    sentence = refused("collect", "--game", "MsPackman", "--out", tmp_path / "frames")
    assert "nearest name is 'MsPacman'" in sentence
    assert not (tmp_path / "frames").exists()
    assert "nearest name is 'Pong'" in refused("train", "--game", "Pongg", "--out", tmp_path / "agent")


@pytest.mark.parametrize("fault", ["missing", "truncated", "another format", "other channels"])
def test_wrong_checkpoints(refused, checkpoint, tmp_path, fault):
    path = tmp_path / "wrong.safetensors"
    if fault == "truncated":
        path.write_bytes(checkpoint.read_bytes()[:-1000])
    elif fault == "another format":
        save_file({"weight": torch.zeros(2)}, path)
    elif fault == "other channels":
        save_checkpoint(PermaKey(PermaKeyConfig(image_channels=1)), path)
    before = path.read_bytes() if path.exists() else None
    sentence = refused("train", "--game", "MsPacman", "--checkpoint", path, "--out", tmp_path / "agent")
    expected = {
        "missing": "no keypoint checkpoint",
        "truncated": "truncated",
        "another format": "not a keypoint checkpoint",
        "other channels": "1 channel(s), but the frames have 3",
    }
    assert expected[fault] in sentence
    assert str(path) in sentence
    assert before == (path.read_bytes() if path.exists() else None)
    assert not (tmp_path / "agent").exists()


def test_frames_of_other_preprocessing(refused, tmp_path):
    description = {"game": "ALE/MsPacman-v5", "preprocessing": {**PREPROCESSING, "frame_skip": 2}}
    write_store(tmp_path / "frames", [square_frames(9)] * 3, (0.8, 0.1, 0.1), description)
    sentence = refused("pretrain", "--frames", tmp_path / "frames", "--out", tmp_path / "model.safetensors")
    assert "other preprocessing: frame_skip is 2, not 4" in sentence
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames"]


def test_wrong_agents(refused, tmp_path):
    (tmp_path / "broken.zip").write_bytes(b"PK nothing")
    flags = ("--game", "MsPacman", "--out", tmp_path / "evaluation.json")
    assert "no saved agent at" in refused("evaluate", "--agent", tmp_path / "nowhere.zip", *flags)
    assert "not a model saved by" in refused("evaluate", "--agent", tmp_path / "broken.zip", *flags)
    assert not (tmp_path / "evaluation.json").exists()


def test_show_refuses_a_frame_that_is_not_there(refused, square_store, tmp_path):
    show = ("show", "--checkpoint", "mspacman", "--frames", square_store.path, "--out", tmp_path / "keypoints.png")
    assert "first must be from 0 to 59, not 100000" in refused(*show, "--first", 100_000)
    assert not (tmp_path / "keypoints.png").exists()


def test_show_of_a_transporter_has_no_peaks(refused, square_store, tmp_path):
    checkpoint = save_checkpoint(Transporter(), tmp_path / "transporter.safetensors")
    show = ("show", "--checkpoint", checkpoint, "--frames", square_store.path, "--out", tmp_path / "keypoints.png")
    assert "is a Transporter, which has no error maps" in refused(*show, "--surround-px", 18)


@pytest.mark.parametrize("output", ["--out", "--gif"])
def test_pictures_are_tried_before_keypoints_are_computed(refused, checkpoint, square_store, tmp_path, output):
    (tmp_path / "file").write_text("not a folder")
    outputs = {"--out": tmp_path / "x.png", "--gif": tmp_path / "x.gif"}
    outputs[output] = tmp_path / "file" / outputs[output].name
    flags = [part for flag in outputs.items() for part in flag]
    sentence = refused("show", "--checkpoint", checkpoint, "--frames", square_store.path, *flags)
    assert f"could not write {outputs[output]}: Not a directory" in sentence
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "my frames"]


def test_settings_are_refused_without_the_parsers_own_names(refused):
    sentence = refused("pretrain", "--frames", "x", "--out", "y.safetensors", "--num-keypoints", 100_000)
    assert sentence == "sb3-permakey: num_keypoints must be from 1 to 1764, not 100000"
    sentence = refused("collect", "--game", "Pong", "--out", "x", "--frames", 0)
    assert sentence == "sb3-permakey: frames must be at least 1, not 0"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("pretrain", "--frames", "nowhere", "--out", "y.safetensors"), "no finished frame store at nowhere"),
        (
            ("show", "--checkpoint", "nowhere", "--frames", "x", "--out", "y.png"),
            "no keypoint checkpoint at or named 'nowhere'",
        ),
        (("score", "nowhere", "--game", "Pong"), "no keypoint checkpoint at"),
    ],
)
def test_missing_inputs(refused, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert words in refused(*arguments)
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("collect", "--game", "Pong", "--out", "x", "--frames", 0), "frames must be at least 1, not 0"),
        (("pretrain", "--frames", "x", "--out", "y.pt"), "out must name a .safetensors file, not y.pt"),
        (
            ("pretrain", "--frames", "x", "--out", "y.safetensors", "--preset", "stronger"),
            "pretrain: --preset must be one of paper, strong, not 'stronger' (",
        ),
        (
            ("pretrain", "--frames", "x", "--out", "y.safetensors", "--preset", "strong", "--method", "transporter"),
            "the strong preset is permakey's",
        ),
        (
            ("pretrain", "--frames", "x", "--out", "y.safetensors", "--num-keypoints", 0),
            "num_keypoints must be from 1 to 1764",
        ),
        (("pretrain", "--frames", "x", "--out", "y.safetensors", "--batch-size", -4), "batch_size must be at least 1"),
        (("pretrain", "--frames", "x", "--out", "y.safetensors", "--max-steps", 0), "max_steps must be at least 1"),
        (("collect", "--game", "Pong", "--out", "x", "--seed", -1), "seed must be from 0 to 2147483647, not -1"),
        (("collect", "--game", "CartPole-v1", "--out", "x"), "CartPole-v1 is not an Atari game: commands take"),
        (("score", "mspacman", "--game", "Pong", "--device", "foo"), "device must be auto, cpu, cuda or another"),
        (("score", "mspacman", "--game", "MsPacman", "--device", "meta"), "there is no device meta on this machine"),
        (
            ("score", "mspacman-transporter", "--game", "MsPacman", "--surround-px", 18),
            "surround_px is a setting of peaks alone",
        ),
        (("score", "x", "--game", "Pong", "--picture", "k.foo"), "picture must name a .png file, not k.foo"),
        ((*SHOW, "--columns", 500), "columns must be from 1 to 100, not 500"),
        ((*SHOW, "--gif", "k.foo"), "gif must name a .gif file, not k.foo"),
        ((*SHOW[:-1], "k.foo"), "out must name a .png file, not k.foo"),
        ((*SHOW, "--gif-frames", 10), "gif_frames is of the GIF: give gif, the file to write"),
        ((*SHOW, "--readout", "pointnet", "--surround-px", 18), "surround_px is a setting of peaks alone"),
        ((*SHOW, "--centroid-px", 0), "centroid_px must be positive, not 0.0"),
        ((*SHOW, "--readout", "peaks", "--persistence", 0.5), "persistence must be at least 1, not 0.5"),
        (("score", "x", "--game", "Pong", "--episodes", 0), "episodes must be from 1 to 1000, not 0"),
        (("score", "x", "--game", "Pong", "--distractor", "diagonal"), "diagonal"),
        (("train", "--game", "Pong", "--out", "x", "--steps", 0), "steps must be at least 1, not 0"),
        (("train", "--game", "Pong", "--out", "x", "--steps", 300), "steps must be more than learning_starts, 10000"),
        (
            ("train", "--game", "Pong", "--out", "x", "--steps", "many"),
            "--steps takes a whole number, not 'many' (",
        ),
        (("evaluate", "--game", "Pong", "--agent", "a.zip", "--out", "x", "--video", "x.gif"), "must name a .mp4"),
        (("train", "--game", "Pong", "--out", "x", "--stepz", 3), "train: there is no option --stepz: perhaps --steps"),
        (("train", "--game", "Pong", "--out", "x", "--steps"), "train: --steps needs a value"),
        (("train", "--game", "Pong", "--out", "x", "--learning-rate=a"), "--learning-rate takes a number, not 'a'"),
        (("train", "--game", "Pong", "--out", "x", "more"), "train: there is no use for 'more'"),
        (("train", "--game", "Pong", "--out", "x", "--encoder", "a"), "cnn, gnn, pairs, not 'a'"),
        (("collect", "--game", "Pong", "--out", "x", "--shares", 1, 2), "collect: --shares needs 3 values"),
        (("collect", "--game", "Pong", "--out", "x", "--shares", 1, "a", 2), "takes numbers, not '1 a 2'"),
        (("show", "mspacman"), "show: --checkpoint, --frames and --out must be given; there is no use for 'mspacman'"),
        (("detect", "--out", "k.csv", "--limit_to", 3), "--checkpoint must be given; there is no option --limit"),
        (("distil", "--frames", "x"), "distil: CHECKPOINT and --out must be given"),
        (("completion", "csh"), "shell must be one of bash, zsh, not 'csh'"),
        (("colect",), "there is no command 'colect': perhaps collect; the commands are collect, pretrain, "),
        (("--steps", 3), "there is no command '--steps'"),
    ],
)
def test_impossible_flags(refused, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    sentence = refused(*arguments)
    assert words in sentence
    assert not re.search(r"<class|literal|None|subcommand|tyro|\{", sentence)
    assert not list(Path().iterdir())
