import base64
import json
import pickle
import zipfile

import ale_py
import gymnasium as gym
import numpy as np
import pytest
from conftest import MovingSquare, square_frames
from filmed import Film, StillImage, gray
from gymnasium import spaces
from sb3_contrib import QRDQN, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.env_util import make_atari_env as make_sb3_atari_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

from sb3_permakey import (
    PermaKeyObservation,
    PreviousActionReward,
    RecurrentDQN,
    RecurrentQRDQN,
)
from sb3_permakey.envs.atari import make_atari_env
from sb3_permakey.envs.named import NamedEnvironment
from sb3_permakey.play.saved_agents import AgentFileError, FrameAgent, load_agent

SMALL = {"policy_kwargs": {"features_extractor_kwargs": {"features_dim": 8}}}
SMALL_DICT = {"policy_kwargs": {"features_extractor_kwargs": {"cnn_output_dim": 8}}}


gym.register_envs(ale_py)


def saved(algorithm, shape, path, policy="CnnPolicy", **settings):
    agent = algorithm(policy, StillImage(shape), **SMALL, **settings)
    agent.save(path)
    return agent


@pytest.fixture
def gray_agent(tmp_path):
    """A DQN on four gray frames, as RL Zoo's, and its file."""
    return saved(DQN, (84, 84, 4), tmp_path / "gray.zip", buffer_size=50, seed=0), tmp_path / "gray.zip"


def test_an_agent_on_gray_stacks_sees_what_sb3s_wrappers_show_it(gray_agent):
    _, path = gray_agent
    player, seen = FrameAgent(path, None), []
    player.agent.predict = lambda observations, *_, **__: (seen.append(observations) or np.zeros(1, int), None)
    frames = square_frames(12)
    wrapped = VecFrameStack(DummyVecEnv([lambda: Film([gray(frame)[..., None] for frame in frames], length=7)]), 4)
    expected, starts = [wrapped.reset()], [True]
    for _ in range(11):
        observation, _, dones, _ = wrapped.step([0])
        expected.append(observation)
        starts.append(bool(dones[0]))
    assert starts.count(True) == 2
    for frame, start in zip(frames, starts, strict=True):
        player.act(frame[None], np.array([start]))
    found = np.stack([np.moveaxis(one, 1, -1) for one in seen]).astype(int)
    assert abs(found - np.stack(expected)).max() <= 1


@pytest.mark.parametrize("shape", [(84, 84, 3), (3, 84, 84)])
def test_agents_on_rgb_frames_in_both_layouts(tmp_path, shape):
    agent = saved(DQN, shape, tmp_path / "rgb.zip", buffer_size=10)
    frames = np.random.default_rng(0).integers(0, 256, (5, 84, 84, 3), dtype=np.uint8)
    layout = frames if shape[-1] == 3 else np.moveaxis(frames, -1, 1)
    expected = agent.predict(layout, deterministic=True)[0]
    np.testing.assert_array_equal(FrameAgent(tmp_path / "rgb.zip", None).act(frames, np.ones(5, bool)), expected)


def test_memories_are_kept_apart(gray_agent):
    one = FrameAgent(gray_agent[1], None)
    other = one.with_own_memory()
    frames = square_frames(2)
    one.act(frames[:1], np.array([True]))
    other.act(frames, np.array([True, True]))
    assert one.observer.stacks.shape[0] == 1
    assert other.observer.stacks.shape[0] == 2
    assert other.agent is one.agent


@pytest.mark.parametrize("algorithm", [DQN, PPO, A2C, QRDQN])
def test_the_algorithm_is_found_in_the_file(tmp_path, algorithm):
    settings = {"buffer_size": 10} if algorithm in (DQN, QRDQN) else {"n_steps": 2}
    settings |= {"batch_size": 2} if algorithm is PPO else {}
    saved(algorithm, (84, 84, 3), tmp_path / "agent.zip", **settings)
    assert type(load_agent(tmp_path / "agent.zip")) is algorithm


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        (RecurrentPPO, {"n_steps": 2, "batch_size": 2}),
        (RecurrentDQN, {"buffer_size": 200}),
        (RecurrentQRDQN, {"buffer_size": 200}),
    ],
)
def test_recurrent_algorithms_are_found_in_the_file(tmp_path, algorithm, settings):
    algorithm("CnnLstmPolicy", StillImage((84, 84, 3)), **settings, **SMALL).save(tmp_path / "a.zip")
    agent = FrameAgent(tmp_path / "a.zip", None)
    assert type(agent.agent) is algorithm
    if "buffer_size" in settings:
        assert len(agent.agent.replay_buffer.actions[0]) == 11, "no larger than a window: it plays"
    assert agent.act(square_frames(2), np.ones(2, bool)).shape == (2,)


class OwnDQN(RecurrentDQN):
    """An agent of somebody else's."""


def rewrite(path, change):
    """Change the entries of a saved agent."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    data = json.loads(files["data"])
    change(data)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**files, "data": json.dumps(data)}.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("algorithm", [RecurrentDQN, OwnDQN])
def test_a_file_names_its_class_and_older_ones_have_their_policies(tmp_path, algorithm):
    path = tmp_path / "agent.zip"
    saved(RecurrentDQN, (84, 84, 3), path, buffer_size=200, policy="CnnLstmPolicy")
    algorithm.load(path).save(path)
    assert type(load_agent(path)) is algorithm
    rewrite(path, lambda data: data.pop("_agent_class"))
    assert type(load_agent(path)) is RecurrentDQN


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:Agent", "saved by nowhere:Agent, which cannot be imported here"),
        ("sb3_permakey:NoAgent", "which cannot be imported here"),
        ("nothing", "which cannot be imported here"),
        ("json:dumps", "which is no algorithm here"),
    ],
)
def test_a_class_that_is_not_here_is_named(tmp_path, name, message):
    saved(RecurrentDQN, (84, 84, 3), tmp_path / "agent.zip", buffer_size=200, policy="CnnLstmPolicy")
    rewrite(tmp_path / "agent.zip", lambda data: data.update(_agent_class=name))
    with pytest.raises(AgentFileError, match=message):
        load_agent(tmp_path / "agent.zip")


class SignedSquare(MovingSquare):
    """Rewards are -2, 0 or 3, by the action."""

    def step(self, action):
        frame, _, *rest = super().step(action)
        return frame, (-2.0, 0.0, 3.0)[int(action)], *rest


@pytest.mark.parametrize("kind", ["keypoints", "frames", "gray"])
def test_an_agent_that_knows_its_previous_step_sees_it_from_frames(tmp_path, checkpoint, kind):
    def wrapped():
        square = gym.wrappers.TransformReward(SignedSquare(6), np.sign)
        if kind == "gray":
            square = gym.wrappers.TransformObservation(
                square, lambda frame: gray(frame)[..., None], spaces.Box(0, 255, (84, 84, 1), np.uint8)
            )
        return PreviousActionReward(PermaKeyObservation(square, checkpoint) if kind == "keypoints" else square)

    policy = "PermaKeyPolicy" if kind == "keypoints" else "MultiInputLstmPolicy"
    RecurrentDQN(policy, wrapped(), buffer_size=20).save(tmp_path / "a.zip")
    player, seen = FrameAgent(tmp_path / "a.zip", checkpoint), []
    actions = iter([2, 0, 1, 2, 0, 1] * 2)
    player.agent.predict = lambda observations, *_, **__: (
        seen.append(observations) or np.array([next(actions)]),
        None,
    )
    env, plain = wrapped(), SignedSquare(6)
    for seed in (1, 2):
        expected, frame, starts, over = env.reset(seed=seed)[0], plain.reset(seed=seed)[0], np.array([True]), False
        while not over:
            (action,) = player.act(frame[None], starts)
            for name, values in expected.items():
                np.testing.assert_allclose(np.squeeze(seen[-1][name][0]), np.squeeze(values), atol=1, rtol=0)
                if name.startswith("previous"):
                    np.testing.assert_array_equal(seen[-1][name][0], values)
            expected, *_ = env.step(action)
            frame, reward, over, *_ = plain.step(action)
            player.note([action], [reward])
            starts = np.array([False])
    assert len(seen) == 12


def test_previous_steps_of_games_that_ended_are_dropped(tmp_path):
    env = PreviousActionReward(StillImage((84, 84, 3)))
    RecurrentDQN("MultiInputLstmPolicy", env, buffer_size=20, **SMALL_DICT).save(tmp_path / "a.zip")
    player, seen = FrameAgent(tmp_path / "a.zip", None), []
    player.act(square_frames(3), np.ones(3, bool))
    player.note([1, 2, 3], [5.0, -5.0, 0.0])
    other = player.with_own_memory()
    player.keep([1, 2])
    player.agent.predict = lambda observations, *_, **__: (seen.append(observations) or np.zeros(2, int), None)
    player.act(square_frames(2), np.array([False, True]))
    assert seen[0]["previous_action"].argmax(axis=1)[0] == 2
    assert seen[0]["previous_reward"].tolist() == [[-1.0], [0.0]]
    assert not seen[0]["previous_action"][1].any()
    other.act(square_frames(1), np.ones(1, bool))
    assert not seen[1]["previous_action"].any()


class Vanished:
    """Pickles as an object of a module that is not installed."""

    def __reduce__(self):
        return (_missing, ())


def _missing():
    raise ModuleNotFoundError("No module named 'gym'")


def test_files_of_older_pythons_and_of_gym_open(gray_agent, tmp_path):
    """RL Zoo's files: spaces pickled by gym, schedules pickled by another Python, a buffer of many gigabytes."""
    agent, path = gray_agent
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    data = json.loads(content["data"])
    unreadable = base64.b64encode(pickle.dumps(Vanished())).decode()
    for name, module in (("observation_space", "box.Box"), ("action_space", "discrete.Discrete")):
        data[name] |= {":type:": f"<class 'gym.spaces.{module}'>", ":serialized:": unreadable}
    for name in ("lr_schedule", "exploration_schedule", "_last_obs"):
        data[name] = {":type:": "<class 'function'>", ":serialized:": unreadable}
    data |= {"buffer_size": 10**9, "optimize_memory_usage": True}
    with zipfile.ZipFile(tmp_path / "old.zip", "w") as archive:
        for name, values in {**content, "data": json.dumps(data)}.items():
            archive.writestr(name, values)
    player = FrameAgent(tmp_path / "old.zip", None)
    assert player.agent.observation_space == agent.observation_space
    assert player.agent.action_space == spaces.Discrete(9)
    frames, starts = square_frames(3), np.ones(3, bool)
    np.testing.assert_array_equal(player.act(frames, starts), FrameAgent(path, None).act(frames, starts))


def test_a_real_rl_zoo_environment_has_the_same_actions_and_stacks(tmp_path):
    env = VecFrameStack(make_sb3_atari_env("MsPacmanNoFrameskip-v4", n_envs=1), 4)
    DQN("CnnPolicy", env, buffer_size=10, **SMALL).save(tmp_path / "zoo.zip")
    agent = FrameAgent(tmp_path / "zoo.zip", None)
    assert agent.observer.size == 4
    agent.require_fit(NamedEnvironment("MsPacman"), make_atari_env("MsPacman").action_space)
    with pytest.raises(
        AgentFileError, match=r"zoo.zip plays with actions Discrete\(9\), but Seaquest has Discrete\(18"
    ):
        agent.require_fit(NamedEnvironment("Seaquest"), make_atari_env("Seaquest").action_space)


def test_observations_of_other_kinds_are_named(tmp_path):
    DQN("MlpPolicy", StillImage((4,), np.float32), buffer_size=10).save(tmp_path / "vector.zip")
    with pytest.raises(AgentFileError, match=r"vector.zip sees Box\(0.0, 255.0, \(4,\), float32\), not keypoints, RGB"):
        FrameAgent(tmp_path / "vector.zip", None)
    saved(DQN, (96, 84, 3), tmp_path / "large.zip", buffer_size=10)
    with pytest.raises(AgentFileError, match="gray stacks of 84x84 pixels"):
        FrameAgent(tmp_path / "large.zip", None)


@pytest.mark.parametrize("content", [None, b"no zip", {"policy_class": {"__module__": "elsewhere.policies"}}])
def test_files_that_are_no_agents_are_named(tmp_path, content):
    path = tmp_path / "agent.zip"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("data", json.dumps(content))
    with pytest.raises(AgentFileError, match=str(path)):
        load_agent(path)
