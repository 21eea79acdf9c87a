import sys
from dataclasses import replace
from inspect import signature
from types import SimpleNamespace

import cv2
import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_atari_env as make_sb3_atari_env
from stable_baselines3.common.vec_env import VecFrameStack

from sb3_permakey.envs.atari import atari_env_id, make_atari_env
from sb3_permakey.envs.distractors import draw_bars, places_by_index
from sb3_permakey.frames.store import FrameStoreError
from sb3_permakey.play import episodes as collecting
from sb3_permakey.play.collect import CollectConfig, collect
from sb3_permakey.play.players import (
    EpisodeActions,
    MinariRecordings,
    RecordingsError,
    Source,
    agent_file,
    parse_sources,
    sources_of_episodes,
)
from sb3_permakey.play.saved_agents import AgentFileError
from sb3_permakey.scores import labelled

SHORT = {"game": "Breakout", "frames": 100, "max_episode_steps": 20}
"""Breakout, because its paddle moves from the first step on."""
ATARI_ID = atari_env_id("Breakout")
DATASET = "atari/breakout/expert-v0"


@pytest.fixture(scope="module")
def zoo_agent(tmp_path_factory):
    """The file of an agent on four gray frames, as RL Zoo's are; its values have no favourite, so its actions vary."""
    path = tmp_path_factory.mktemp("zoo") / "dqn-BreakoutNoFrameskip-v4.zip"
    env = VecFrameStack(make_sb3_atari_env("BreakoutNoFrameskip-v4", n_envs=1), 4)
    agent = DQN("CnnPolicy", env, buffer_size=10, seed=3)
    env.seed(0)
    stacks = [env.reset(), *(env.step([step % 4])[0] for step in range(40))]
    with torch.no_grad():
        values = torch.cat([agent.q_net(agent.policy.obs_to_tensor(stack)[0]) for stack in stacks])
        agent.q_net.q_net[-1].bias -= values.mean(dim=0)
    agent.save(path)
    return path


def recorded_games(lengths, seed=0):
    """Raw observations of games with a frame skip of 4 inside the emulator, as Minari's data sets hold them."""
    env = gym.make(ATARI_ID, frameskip=4, repeat_action_probability=0)
    random, games = np.random.default_rng(seed), []
    for game, length in enumerate(lengths):
        observations = [env.reset(seed=game)[0]]
        observations += [env.step(random.integers(4))[0] for _ in range(length - 1)]
        games.append(np.stack(observations))
    return games


@pytest.fixture
def data_sets(monkeypatch):
    """Minari's face over games in memory, by data set id; what is read is counted."""
    data_sets = {}

    def load_dataset(dataset_id, download=False):
        assert download
        if dataset_id not in data_sets:
            raise ValueError(f"no {dataset_id} on the server\nmore lines")
        return data_sets[dataset_id]

    monkeypatch.setitem(sys.modules, "minari", SimpleNamespace(load_dataset=load_dataset))
    return data_sets


def data_set(games, env_id=ATARI_ID, frame_skip=4):
    return SimpleNamespace(
        total_episodes=len(games),
        episode_indices=np.arange(len(games)),
        env_spec=SimpleNamespace(id=env_id, kwargs={"frameskip": frame_skip}),
        observation_space=spaces.Box(0, 255, games[0].shape[1:], np.uint8),
        iterate_episodes=lambda numbers: (SimpleNamespace(observations=games[number]) for number in numbers),
    )


def episodes_of(store):
    """Each episode's frames, by its number."""
    return {
        episode.index: np.array(store.splits[episode.split][episode.start : episode.start + episode.length])
        for episode in store.episodes
    }


def assert_equal_episodes(found, expected):
    assert found.keys() == expected.keys()
    for index, frames in expected.items():
        np.testing.assert_array_equal(found[index], frames)


def test_words_of_the_command_line(tmp_path):
    assert parse_sources(["random"]) == [Source("random", 1.0)]
    assert parse_sources(["random=1", "a/b=3"]) == [Source("random", 0.25), Source("a/b", 0.75)]
    assert parse_sources(["random", "agent.zip"]) == [Source("random", 0.5), Source("agent.zip", 0.5)]
    assert parse_sources(["lr=0.1/agent.zip=2"]) == [Source("lr=0.1/agent.zip", 1.0)]
    (tmp_path / "agent=2").touch()
    assert parse_sources([f"{tmp_path}/agent=2"]) == [Source(f"{tmp_path}/agent=2", 1.0)]


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ([], "policy must name at least one player"),
        (["random=0.5", "agent.zip"], "a share to every policy or to none, not as in 'random=0.5 agent.zip'"),
        (["random=-1"], "the share of policy random must be a positive number, not '-1'"),
        (["random=half"], "the share of policy random must be a positive number, not 'half'"),
        (["random=nan"], "must be a positive number"),
    ],
)
def test_impossible_shares_are_named(policies, message):
    with pytest.raises(ValueError, match=message):
        parse_sources(policies)


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_sources_have_their_shares_after_any_number_of_episodes(seed):
    sources = [Source("a", 0.5), Source("b", 0.3), Source("c", 0.2)]
    played = sources_of_episodes(sources, seed, 400)
    np.testing.assert_array_equal(sources_of_episodes(sources, seed, 33), played[:33])
    for index, source in enumerate(sources):
        counts = np.cumsum(played == index)
        assert abs(counts - source.share * np.arange(1, 401)).max() < 3
    assert not np.array_equal(played, sources_of_episodes(sources, seed + 1, 400))


def test_episodes_of_a_mixture_are_those_of_its_sources_alone(zoo_agent, tmp_path):
    config = CollectConfig(out=tmp_path / "mixed", policy=("random=0.5", f"{zoo_agent}=0.5"), **SHORT)
    mixed = episodes_of(collect(config))
    alone = {
        name: episodes_of(collect(replace(config, out=tmp_path / str(index), policy=(name,))))
        for index, name in enumerate(("random", str(zoo_agent)))
    }
    names = [("random", str(zoo_agent))[source] for source in sources_of_episodes(parse_sources(config.policy), 0, 8)]
    assert sorted(set(names)) == sorted(alone)
    assert_equal_episodes(mixed, {index: alone[names[index]][index] for index in mixed})
    assert not np.array_equal(alone["random"][0], alone[str(zoo_agent)][0])


def test_a_mixture_does_not_depend_on_a_kill(zoo_agent, tmp_path, monkeypatch):
    config = CollectConfig(out=tmp_path / "one", policy=("random", str(zoo_agent)), epsilon=0.3, **SHORT)
    expected = episodes_of(collect(config))

    write, written = collecting._write_episode, []

    def write_three(path, frames):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        write(path, frames)

    monkeypatch.setattr(collecting, "_write_episode", write_three)
    killed = replace(config, out=tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        collect(killed)
    assert len(written) == 3
    monkeypatch.setattr(collecting, "_write_episode", write)
    assert_equal_episodes(episodes_of(collect(killed)), expected)


def own_game(zoo_agent, seed, length):
    """Frames and actions of the agent's own choices, made with SB3's wrappers' stacks."""
    agent, env = DQN.load(zoo_agent), make_atari_env("Breakout", training=False)
    frames, actions = [env.reset(seed=seed)[0]], []
    stack = np.zeros((4, 84, 84), np.uint8)
    while len(frames) < length:
        gray = np.rint(frames[-1] @ [0.299, 0.587, 0.114]).astype(np.uint8)
        stack = np.concatenate([stack[1:], gray[None]])
        actions.append(int(agent.predict(stack, deterministic=True)[0]))
        frames.append(env.step(actions[-1])[0])
    return frames, actions


def test_an_agent_plays_greedily_but_for_epsilon(zoo_agent, tmp_path):
    config = CollectConfig(out=tmp_path / "frames", policy=(str(zoo_agent),), epsilon=0.0, **SHORT)
    frames = episodes_of(collect(config))[0]
    expected, actions = own_game(zoo_agent, int(np.random.default_rng((0, 0)).integers(2**31)), len(frames))
    np.testing.assert_array_equal(frames, expected)
    assert len(set(actions)) > 1


def test_an_agent_begins_each_life_anew_as_it_learned():
    starts = []
    agent = SimpleNamespace(act=lambda frames, start: starts.append(bool(start[0])) or [1])
    agent.with_own_memory = lambda: agent
    actions = EpisodeActions(agent, spaces.Discrete(3), 0.0, np.random.default_rng(0))
    # A bonus life is no start; a game with lives of 0 is over or never counted them.
    for lives in (3, 3, 2, 2, 3, 2, 0):
        actions.next(np.zeros((84, 84, 3), np.uint8), {"lives": lives})
    assert starts == [True, False, True, False, False, True, False]
    actions.next(np.zeros((84, 84, 3), np.uint8), {})


def test_frames_to_score_may_be_an_agents_own(zoo_agent, monkeypatch):
    pytest.importorskip("ocatari")
    monkeypatch.setattr(labelled, "MAX_EPISODE_STEPS", 20)
    settings = {"episodes": 1, "frames": 3, "spacing": 5}
    played = labelled.labelled_frames("Breakout", policy=(str(zoo_agent),), epsilon=0.0, **settings)
    expected, _ = own_game(zoo_agent, labelled.FIRST_SCORING_SEED, 17)
    # Pairs are frames 5 and 6, 10 and 11, 15 and 16.
    np.testing.assert_array_equal(played.frames, np.stack([expected[step : step + 2] for step in (5, 10, 15)]))
    explored = labelled.labelled_frames("Breakout", policy=(str(zoo_agent),), epsilon=1.0, **settings)
    assert (explored.frames != played.frames).any()


def test_recordings_cannot_be_scored(data_sets):
    pytest.importorskip("ocatari")
    data_sets[DATASET] = data_set(recorded_games([5]))
    with pytest.raises(ValueError, match="recordings cannot be scored: objects are read from the emulator"):
        labelled.labelled_frames("Breakout", policy=(f"minari:{DATASET}",), episodes=1)


def test_agents_come_from_the_hub(zoo_agent, tmp_path, monkeypatch):
    asked = []

    def load_from_hub(repo_id, filename):
        asked.append((repo_id, filename))
        return str(zoo_agent)

    monkeypatch.setitem(sys.modules, "huggingface_sb3", SimpleNamespace(load_from_hub=load_from_hub))
    name = "sb3/dqn-BreakoutNoFrameskip-v4"
    config = CollectConfig(out=tmp_path / "hub", policy=(name,), **SHORT)
    store = collect(config)
    assert set(asked) == {(name, "dqn-BreakoutNoFrameskip-v4.zip")}
    assert store.description["policy"] == [name]
    expected = collect(replace(config, out=tmp_path / "file", policy=(str(zoo_agent),)))
    assert_equal_episodes(episodes_of(store), episodes_of(expected))
    collect(config)
    assert len(asked) == 1


def test_files_go_before_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sb3").mkdir()
    (tmp_path / "sb3" / "agent").touch()
    monkeypatch.setitem(sys.modules, "huggingface_sb3", None)
    assert agent_file("sb3/agent").samefile(tmp_path / "sb3" / "agent")


@pytest.mark.parametrize("name", ["missing.zip", "runs/missing.zip", "missing", "./agent", "/tmp/agent", "a/b/c"])
def test_missing_files_are_not_asked_of_the_hub(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_sb3", None)
    with pytest.raises(AgentFileError, match=f"no saved agent at {name}"):
        agent_file(name)


def test_repositories_that_cannot_be_had_are_named(tmp_path, monkeypatch):
    def load_from_hub(repo_id, filename):
        raise OSError("404 Client Error\nmore lines")

    monkeypatch.setitem(sys.modules, "huggingface_sb3", SimpleNamespace(load_from_hub=load_from_hub))
    with pytest.raises(AgentFileError, match=r"^sb3/none-v4 is no file, and its none-v4.zip could.*404 Client Error$"):
        collect(CollectConfig(out=tmp_path / "frames", policy=("sb3/none-v4",), **SHORT))
    assert not (tmp_path / "frames").exists()


def test_packages_that_are_missing_are_named(monkeypatch):
    for package in ("huggingface_sb3", "minari"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r'^sb3/x is no file.* need huggingface_sb3: pip install -e ".*\[players'):
        agent_file("sb3/x")
    with pytest.raises(ImportError, match=r'needs minari: pip install -e ".*\[players\]"$'):
        MinariRecordings(DATASET, "Breakout")


def test_recordings_become_our_frames_each_used_once(data_sets, tmp_path):
    games = recorded_games([15, 30, 12, 23])
    data_sets[DATASET] = data_set(games)
    config = CollectConfig(out=tmp_path / "one", policy=(f"minari:{DATASET}",), **{**SHORT, "frames": 60})
    found = episodes_of(collect(config))
    assert sorted(len(frames) for frames in found.values()) == [12, 15, 20, 20]
    by_length = {len(game): game for game in games if len(game) < 20}
    for frames in found.values():
        if len(frames) < 20:
            expected = [cv2.resize(raw, (84, 84), interpolation=cv2.INTER_AREA) for raw in by_length[len(frames)]]
            np.testing.assert_array_equal(frames, expected)
    again = collect(replace(config, out=tmp_path / "again"))
    assert_equal_episodes(episodes_of(again), found)
    noisy = episodes_of(collect(replace(config, out=tmp_path / "noisy", distractor="both")))
    for index, frames in found.items():
        places = places_by_index("both", np.arange(len(frames)), (0, index))
        np.testing.assert_array_equal(noisy[index], draw_bars(frames, places))


def test_recordings_that_end_too_soon_are_named_and_fewer_frames_can_be_had(data_sets, tmp_path):
    data_sets[DATASET] = data_set(recorded_games([10, 11, 12, 13]))
    policy = ("random=0.5", f"minari:{DATASET}=0.5")
    config = CollectConfig(out=tmp_path / "frames", policy=policy, game="Breakout", frames=900, max_episode_steps=20)
    with pytest.raises(FrameStoreError, match=r"recordings of random=0.5 minari:\S+ end after (\d+) frames") as caught:
        collect(config)
    frames = int(str(caught.value).split("end after ")[1].split()[0])
    assert 46 < frames < 46 + 6 * 20
    found = collect(replace(config, frames=frames))
    assert sum(episode.length for episode in found.episodes) == frames
    lengths = [episode.length for episode in found.episodes]
    assert sorted(length for length in lengths if length != 20) == [10, 11, 12, 13]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"env_id": "ALE/Pong-v5"}, "is of ALE/Pong-v5, not ALE/Breakout-v5"),
        ({"frame_skip": 1}, "has a frame skip of 1, not 4"),
        ({"games": [np.zeros((2, 128), np.uint8)]}, r"holds Box\(0, 255, \(128,\), uint8\), not RGB frames"),
    ],
)
def test_data_sets_of_other_frames_are_named(data_sets, settings, message):
    data_sets[DATASET] = data_set(**{"games": [np.zeros((2, 210, 160, 3), np.uint8)], **settings})
    with pytest.raises(RecordingsError, match=f"the Minari data set {DATASET} {message}"):
        MinariRecordings(DATASET, "Breakout")


def test_missing_data_sets_are_named(data_sets):
    with pytest.raises(
        RecordingsError, match="^could not load the Minari data set atari/x-v0: no atari/x-v0 on the serv"
    ):
        MinariRecordings("atari/x-v0", "Breakout")


def test_a_real_minari_data_set(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    pytest.importorskip("h5py")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    buffers = [
        minari.data_collector.EpisodeBuffer(
            observations=game,
            actions=np.zeros(len(game) - 1, int),
            rewards=[0.0] * (len(game) - 1),
            terminations=[False] * (len(game) - 1),
            truncations=[False] * (len(game) - 2) + [True],
        )
        for game in recorded_games([11, 12, 13])
    ]
    env = gym.make(ATARI_ID, frameskip=4, repeat_action_probability=0)
    create = minari.create_dataset_from_buffers
    lossless = {"jpeg_encoding": False} if "jpeg_encoding" in signature(create).parameters else {}  # minari >= 0.5.4
    create("atari/test-v0", buffers, env, data_format="hdf5", **lossless)
    recordings = MinariRecordings("atari/test-v0", "Breakout")
    assert len(recordings) == 3
    (raw,) = minari.load_dataset("atari/test-v0").iterate_episodes([1])
    expected = [cv2.resize(frame, (84, 84), interpolation=cv2.INTER_AREA) for frame in raw.observations]
    assert len(expected) == 12
    np.testing.assert_array_equal(recordings.frames(1, limit=100), expected)
    np.testing.assert_array_equal(recordings.frames(1, limit=5), expected[:5])
    store = collect(CollectConfig(game="Breakout", out=tmp_path / "f", frames=30, policy=("minari:atari/test-v0",)))
    assert sorted(episode.length for episode in store.episodes) == [11, 12, 13]
    with pytest.raises(RecordingsError, match="could not load the Minari data set atari/none: "):
        MinariRecordings("atari/none", "Breakout")
