import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from ale_py.env import AtariEnv

from sb3_permakey.envs.atari import make_atari_env
from sb3_permakey.envs.distractors import BAR_COLOR
from sb3_permakey.files import InUseError, WriteError, locked_folder
from sb3_permakey.frames.store import FrameStoreError
from sb3_permakey.play.collect import CollectConfig, Player, collect
from sb3_permakey.play.players import Roster, parse_sources

SHORT = {"game": "Breakout", "frames": 180, "max_episode_steps": 40}
"""Breakout, because its paddle moves from the first step on."""


def stored(config: CollectConfig) -> dict[str, np.ndarray]:
    return {split: np.array(frames) for split, frames in collect(config).splits.items()}


def playing(config: CollectConfig, episode: int) -> Player:
    """A player at the beginning of an episode."""
    env = make_atari_env(config.game, training=False, distractor=config.distractor)
    sources = parse_sources(config.policy)
    player = Player(config, Roster(sources, config.environment, env.action_space, None, config.seed), env)
    assert player.start(episode)
    return player


@pytest.fixture(scope="module")
def collected(tmp_path_factory) -> tuple[CollectConfig, dict[str, np.ndarray]]:
    config = CollectConfig(out=tmp_path_factory.mktemp("collected") / "frames", **SHORT)
    return config, stored(config)


def test_frames_and_description(collected):
    config, frames = collected
    assert sum(len(split) for split in frames.values()) >= 180
    description = json.loads((config.out / "frames.json").read_text())
    assert description["game"] == "ALE/Breakout-v5"
    assert description["preprocessing"]["frame_skip"] == 4
    assert all(episode["length"] <= 40 for episode in description["episodes"])
    assert sorted(path.name for path in config.out.iterdir()) == ["frames.json", "test.npy", "train.npy", "valid.npy"]


def test_equal_seeds_give_equal_frames(collected, tmp_path):
    config, frames = collected
    for split, again in stored(replace(config, out=tmp_path / "frames")).items():
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
    flags = {"game": "Breakout", "frames": 180, "max-episode-steps": 40}
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
    # Where a game waits for FIRE after a lost life, the two press it in ways of their own.
    player = playing(CollectConfig(game="MsPacman", out="unused", **{"frames": 1}), episode=3)
    actions = []
    choose = player.actions.next
    player.actions.next = lambda *given: actions.append(choose(*given)) or actions[-1]
    for _ in range(30):
        player.step()
    acting = make_atari_env("MsPacman", training=True)
    seed = int(np.random.default_rng((0, 3)).integers(2**31))
    np.testing.assert_array_equal(acting.reset(seed=seed)[0], player.frames[0])
    for action, frame in zip(actions, player.frames[1:], strict=True):
        np.testing.assert_array_equal(acting.step(action)[0], frame)


def test_the_emulator_is_closed(tmp_path, monkeypatch):
    closed = []
    monkeypatch.setattr(AtariEnv, "close", lambda env: closed.append(env))
    collect(CollectConfig(out=tmp_path / "frames", **SHORT))
    assert len(closed) == 1


def test_a_checkpoint_that_no_player_needs_is_named(tmp_path):
    config = CollectConfig(out=tmp_path / "frames", checkpoint="mspacman", **SHORT)
    with pytest.raises(ValueError, match="the checkpoint mspacman would not be used: no player sees keypoints"):
        collect(config)
    assert not config.out.exists()


def test_a_collection_that_failed_at_once_leaves_the_folder_to_others(tmp_path, monkeypatch):
    config = CollectConfig(out=tmp_path / "frames", **SHORT)

    def fail(player, index):
        raise ValueError("no episode today")

    with monkeypatch.context() as patch:
        patch.setattr(Player, "start", fail)
        with pytest.raises(ValueError, match="no episode today"):
            collect(config)
    assert {episode.split for episode in collect(replace(config, seed=5)).episodes} == {"train", "valid", "test"}


def test_a_second_collection_in_the_same_folder_is_refused_and_harms_nothing(collected, tmp_path):
    config = CollectConfig(out=tmp_path / "frames", **SHORT)
    with locked_folder(config.out), pytest.raises(InUseError, match="another run is writing .*frames"):
        collect(config)
    finished, frames = collected
    with locked_folder(finished.out):  # reading is no writing
        np.testing.assert_array_equal(collect(finished).splits["test"], frames["test"])


def test_a_folder_that_cannot_be_written_is_named_before_anybody_plays(tmp_path, monkeypatch):
    monkeypatch.setattr(Player, "start", lambda player, index: pytest.fail("somebody plays"))
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(WriteError, match="could not write .*file/frames.*: Not a directory"):
        collect(CollectConfig(out=tmp_path / "file" / "frames", **SHORT))


def test_noisy_frames_are_the_clean_ones_with_bars(collected, tmp_path):
    config, clean = collected
    noisy = stored(replace(config, out=tmp_path / "frames", distractor="both"))
    assert json.loads((tmp_path / "frames" / "frames.json").read_text())["distractor"] == "both"
    for split, frames in noisy.items():
        changed = (frames != clean[split]).any(axis=-1)
        np.testing.assert_array_equal(changed, (frames == BAR_COLOR).all(axis=-1))
        assert (changed.all(axis=2).sum(axis=1) == 5).all()
        assert (changed.all(axis=1).sum(axis=1) == 5).all()
    with pytest.raises(FrameStoreError, match="made with distractor None, not both; use another folder"):
        collect(replace(config, distractor="both"))


def test_stores_of_the_first_release_are_the_same_collection(collected, tmp_path):
    """They name no distractor, and one policy or none."""
    config, _ = collected
    shutil.copytree(config.out, tmp_path / "old")
    description = json.loads((tmp_path / "old" / "frames.json").read_text())
    for policy, now in ((None, ("random",)), ("agent.zip", ("agent.zip",))):
        old = {key: value for key, value in description.items() if key != "distractor"} | {"policy": policy}
        (tmp_path / "old" / "frames.json").write_text(json.dumps(old))
        collect(replace(config, out=tmp_path / "old", policy=now))
        with pytest.raises(FrameStoreError, match="made with policy"):
            collect(replace(config, out=tmp_path / "old", policy=("other.zip",)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frames": 0}, "frames must be"),
        ({"epsilon": 2.0}, "epsilon must be"),
        ({"shares": (0.5, 0.5, 0.5)}, "shares must"),
        ({"policy": ()}, "policy must name"),
        ({"distractor": "diagonal"}, "distractor must be one of"),
        ({"seed": -1}, "seed must be from 0 to 2147483647, not -1"),
        ({"max_episode_steps": 0}, "max_episode_steps must be at least 1"),
        ({"epsilon": 0.2}, "epsilon is of agents, but none plays: policy names random"),
        ({"epsilon": 0.2, "policy": ("minari:x", "random")}, "epsilon is of agents, but none plays"),
    ],
)
def test_impossible_settings_are_named(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        CollectConfig(**{**SHORT, "out": tmp_path, **settings})
