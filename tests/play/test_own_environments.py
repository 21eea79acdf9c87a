import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from conftest import MovingSquare
from gymnasium import spaces

from sb3_permakey import PermaKeyObservation
from sb3_permakey.cli import main
from sb3_permakey.frames.store import FrameStoreError
from sb3_permakey.keypoints import PermaKeyConfig
from sb3_permakey.pretraining import PretrainConfig, pretrain, record_frames


def columns(frames: np.ndarray) -> np.ndarray:
    """Where the squares of a MovingSquare's frames begin."""
    return (frames[:, 40, :, 0] == 255).argmax(axis=1)


def test_episodes_of_random_actions(tmp_path):
    store = record_frames(MovingSquare(), tmp_path / "frames", frames=100)
    assert [episode.length for episode in store.episodes] == [21] * 5
    assert not store.is_atari
    description = json.loads((tmp_path / "frames" / "frames.json").read_text())
    assert (description["game"], description["policy"]) == ("MovingSquare", ["random"])
    moves = np.diff(columns(np.array(store.splits["train"][:21])))
    assert set(moves) <= {-4, 0, 4}
    assert len(set(moves)) > 1
    # Actions last several steps more often than not.
    assert (np.diff(moves) == 0).mean() > 0.5


def test_seed_and_number_decide_an_episode(tmp_path):
    record_frames(MovingSquare(), tmp_path / "long", frames=100)
    env = MovingSquare()
    env.reset(seed=5)
    short = record_frames(env, tmp_path / "short", frames=60)
    other = record_frames(env, tmp_path / "other", frames=60, seed=1)
    assert short.episodes[0].split == "train"
    first = np.load(tmp_path / "long" / "train.npy")[:21]
    assert np.array_equal(short.splits["train"][:21], first)
    assert not np.array_equal(other.splits["train"][:21], first)


class KilledInThirdEpisode(gym.Wrapper):
    """Is killed in its third episode once."""

    episodes = 0

    def reset(self, **kwargs):
        self.episodes += 1
        return super().reset(**kwargs)

    def step(self, action):
        if self.episodes == 3:
            self.episodes += 1
            raise KeyboardInterrupt
        return super().step(action)


def test_a_stopped_recording_goes_on(tmp_path):
    expected = record_frames(MovingSquare(), tmp_path / "whole", frames=100)
    env = KilledInThirdEpisode(MovingSquare())
    with pytest.raises(KeyboardInterrupt):
        record_frames(env, tmp_path / "stopped", frames=100)
    store = record_frames(env, tmp_path / "stopped", frames=100)
    assert env.episodes == 4 + 3  # two were kept, three were left
    for split, frames in store.splits.items():
        assert np.array_equal(frames, expected.splits[split])
    assert record_frames(env, tmp_path / "stopped", frames=100).episodes == store.episodes
    assert env.episodes == 4 + 3
    with pytest.raises(FrameStoreError, match="made with seed 0, not 1"):
        record_frames(env, tmp_path / "stopped", frames=100, seed=1)


def test_a_policy_sees_the_frame_before_its_action(tmp_path):
    def to_the_middle(frame: np.ndarray) -> int:
        return 2 if columns(frame[None])[0] < 40 else 0

    store = record_frames(MovingSquare(), tmp_path / "frames", frames=100, policy=to_the_middle)
    assert store.description["policy"] == ["to_the_middle"]
    assert np.abs(columns(np.array(store.splits["test"]))[-5:] - 40).max() <= 4


class Steered(MovingSquare):
    """Takes continuous actions."""

    action_space = spaces.Box(-1, 1, (2,))

    def step(self, action):
        assert action in self.action_space
        return super().step(round(1 + float(action[0])))


def test_any_action_space(tmp_path):
    store = record_frames(Steered(), tmp_path / "frames", frames=60, max_episode_steps=12)
    assert [episode.length for episode in store.episodes] == [12] * 5
    assert len(np.unique(columns(np.array(store.splits["train"])))) > 3


def test_environments_that_reuse_their_frame(tmp_path):
    class InPlace(gym.ObservationWrapper):
        buffer = np.zeros((84, 84, 3), np.uint8)

        def observation(self, observation):
            self.buffer[:] = observation
            return self.buffer

    expected = record_frames(MovingSquare(), tmp_path / "copied", frames=60)
    store = record_frames(InPlace(MovingSquare()), tmp_path / "in_place", frames=60)
    assert np.array_equal(store.splits["train"], expected.splits["train"])


def test_more_episodes_than_a_process_may_have_files_open(tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    mapped = []

    def remove(folder):
        mapped.extend(line for line in Path("/proc/self/maps").read_text().splitlines() if str(folder) in line)
        shutil.rmtree(folder)

    monkeypatch.setattr("sb3_permakey.play.episodes.shutil", SimpleNamespace(rmtree=remove))
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 60, hard))
    try:
        store = record_frames(MovingSquare(length=1), tmp_path / "frames", frames=200)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(store.episodes) == 100
    assert not mapped  # Windows removes no file that is mapped


def test_wrong_input_is_named_before_anything_is_written(tmp_path):
    out = tmp_path / "frames"
    small = gym.wrappers.TransformObservation(
        MovingSquare(), lambda frame: frame[::2, ::2], spaces.Box(0, 255, (42, 42, 3), np.uint8)
    )
    with pytest.raises(ValueError, match=r"uint8 \(84, 84, 3\).*ResizeObservation"):
        record_frames(small, out)
    with pytest.raises(ValueError, match="frames must be at least 1, not 0"):
        record_frames(MovingSquare(), out, frames=0)
    with pytest.raises(ValueError, match="seed must be from 0 to 2147483647, not -1"):
        record_frames(MovingSquare(), out, seed=-1)
    with pytest.raises(ValueError, match="shares must be positive"):
        record_frames(MovingSquare(), out, shares=(1.0, 0.0, 0.0))
    assert not out.exists()
    with pytest.raises(FrameStoreError, match="2 episode.*cut episodes sooner"):
        record_frames(MovingSquare(), out, frames=40)


def test_from_an_environment_to_its_keypoints(tmp_path, capsys):
    record_frames(MovingSquare(), tmp_path / "frames", frames=150)
    model = PermaKeyConfig(num_keypoints=3)
    config = PretrainConfig(
        tmp_path / "square.safetensors", tmp_path / "frames", model=model, max_steps=2, batch_size=4
    )
    checkpoint = pretrain(config)
    observation, _ = PermaKeyObservation(MovingSquare(), checkpoint).reset()
    assert observation["keypoints"].shape == (3, 2)
    flags = ["--checkpoint", str(checkpoint), "--frames", str(tmp_path / "frames"), "--first", "0"]
    main(["show", *flags, "--out", str(tmp_path / "show.png")])
    assert f'next: in Python, PermaKeyObservation(env, "{checkpoint}")' in capsys.readouterr().out
    flags = ["--frames", str(tmp_path / "frames"), "--out", str(tmp_path / "other.safetensors"), "--max-steps", "1"]
    main(["pretrain", *flags, "--batch-size", "4", "--num-keypoints", "3"])
    assert "not scored: true objects are known of Atari games alone" in capsys.readouterr().out
