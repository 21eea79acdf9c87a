import json
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from stable_baselines3 import DQN

from sb3_permakey.atari import make_atari_env
from sb3_permakey.pretraining.collect import CollectConfig, Player, collect
from sb3_permakey.pretraining.frames import FrameStoreError

SHORT = {"game": "MsPacman", "frames": 180, "max_episode_steps": 40}


def stored(config: CollectConfig) -> dict[str, np.ndarray]:
    return {split: np.array(frames) for split, frames in collect(config).splits.items()}


@pytest.fixture(scope="module")
def collected(tmp_path_factory) -> tuple[CollectConfig, dict[str, np.ndarray]]:
    config = CollectConfig(out=tmp_path_factory.mktemp("collected") / "frames", **SHORT)
    return config, stored(config)


def test_frames_and_description(collected):
    config, frames = collected
    assert sum(len(split) for split in frames.values()) >= 180
    description = json.loads((config.out / "frames.json").read_text())
    assert description["game"] == "ALE/MsPacman-v5"
    assert description["preprocessing"]["frame_skip"] == 4
    assert all(episode["length"] <= 40 for episode in description["episodes"])
    assert sorted(path.name for path in config.out.iterdir()) == ["frames.json", "test.npy", "train.npy", "valid.npy"]


@pytest.mark.parametrize("num_envs", [1, 3])
def test_number_of_environments_does_not_change_the_frames(collected, tmp_path, num_envs):
    config, frames = collected
    for split, again in stored(replace(config, out=tmp_path / "frames", num_envs=num_envs)).items():
        np.testing.assert_array_equal(again, frames[split])


def test_another_seed_gives_other_frames(collected, tmp_path):
    config, frames = collected
    other = stored(replace(config, out=tmp_path / "frames", seed=1))
    assert not np.array_equal(other["train"][:50], frames["train"][:50])


def test_a_killed_collection_goes_on_and_ends_the_same(collected, tmp_path):
    config, frames = collected
    command = [
        sys.executable,
        "-c",
        "from sb3_permakey.cli import main; main()",
        "collect",
        "--out",
        str(tmp_path / "f"),
    ]
    flags = {"game": "MsPacman", "frames": 180, "max-episode-steps": 40, "num-envs": 1}
    arguments = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    process = subprocess.Popen([*command, *arguments], stderr=subprocess.DEVNULL)
    episodes = tmp_path / "f" / "episodes"
    while process.poll() is None and not list(episodes.glob("[0-9]*.npy")):
        time.sleep(0.01)
    process.kill()
    process.wait()
    left = sorted(path.name for path in episodes.glob("[0-9]*.npy"))
    assert left, "the kill came too late to test anything"
    for split, again in stored(replace(config, out=tmp_path / "f")).items():
        np.testing.assert_array_equal(again, frames[split])


def test_a_finished_collection_is_not_made_again(collected):
    config, _ = collected
    before = (config.out / "train.npy").stat().st_mtime_ns
    collect(config)
    assert (config.out / "train.npy").stat().st_mtime_ns == before


def test_frames_of_other_settings_are_not_overwritten(collected):
    config, _ = collected
    with pytest.raises(FrameStoreError, match="holds frames made with seed 0, not 5"):
        collect(replace(config, seed=5))
    with pytest.raises(FrameStoreError, match="finished with fewer than 100000 frames"):
        collect(replace(config, frames=100_000))


def test_collection_and_acting_see_equal_pixels_for_equal_emulator_states():
    player = Player(CollectConfig(game="MsPacman", out="unused", **{"frames": 1}))
    player.start(index=3)
    actions = []
    choose = player._choose
    player._choose = lambda action: actions.append(choose(action)) or actions[-1]
    for _ in range(30):
        player.step(None)
    acting = make_atari_env("MsPacman", training=True)
    seed = int(np.random.default_rng((0, 3)).integers(2**31))
    np.testing.assert_array_equal(acting.reset(seed=seed)[0], player.frames[0])
    for action, frame in zip(actions, player.frames[1:], strict=True):
        np.testing.assert_array_equal(acting.step(action)[0], frame)


def test_a_saved_policy_plays(tmp_path):
    env = make_atari_env("MsPacman")
    DQN("CnnPolicy", env, buffer_size=10).save(tmp_path / "model.zip")
    config = CollectConfig(out=tmp_path / "frames", policy=tmp_path / "model.zip", epsilon=0.0, num_envs=2, **SHORT)
    store = collect(config)
    assert store.description["policy"] == str(tmp_path / "model.zip")
    assert sum(len(frames) for frames in store.splits.values()) >= 180


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frames": 0}, "frames must be"),
        ({"epsilon": 2.0}, "epsilon must be"),
        ({"shares": (0.5, 0.5, 0.5)}, "shares must"),
    ],
)
def test_impossible_settings_are_named(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        CollectConfig(**{**SHORT, "out": tmp_path, **settings})
