import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
from conftest import NUM_KEYPOINTS, MovingSquare
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper

from sb3_permakey import (
    PermaKeyObservation,
    RecurrentDQN,
    VecPermaKeyObservation,
    VecPreviousActionReward,
    make_atari_env,
)
from sb3_permakey.keypoints import CheckpointError, Keypoints, PermaKey, PermaKeyConfig, ReadoutConfig
from sb3_permakey.play.saved_agents import FrameAgent


@pytest.fixture
def float32_wrapper(checkpoint):
    return lambda env, **kwargs: PermaKeyObservation(env, checkpoint, precision="float32", **kwargs)


PEAKS = {"readout": "peaks", "num_keypoints": 6, "min_distance_px": 8.0}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"keypoints": (NUM_KEYPOINTS, 2), "features": (NUM_KEYPOINTS, 64)}),
        (
            {"keep_image": True},
            {"keypoints": (NUM_KEYPOINTS, 2), "features": (NUM_KEYPOINTS, 64), "image": (84, 84, 3)},
        ),
        (PEAKS, {"keypoints": (6, 2), "features": (6, 64), "confidence": (6,)}),
        (
            {**PEAKS, "history": 3},
            {"keypoints": (6, 2), "features": (6, 64), "confidence": (6,), "motion": (6, 6)},
        ),
    ],
)
def test_space_and_environment_checks(float32_wrapper, settings, expected):
    env = float32_wrapper(MovingSquare(), **settings)
    assert {name: space.shape for name, space in env.observation_space.spaces.items()} == expected
    check_env(env, warn=False)
    gymnasium_check_env(env, skip_render_check=True)


def test_checks_pass_on_a_real_game(float32_wrapper):
    env = float32_wrapper(make_atari_env("MsPacman", seed=0))
    check_env(env, warn=False)
    observation, _ = env.reset()
    assert env.observation_space.contains(observation)


def test_takes_a_loaded_model_too(keypoint_model, float32_wrapper):
    from_path, from_model = (
        float32_wrapper(MovingSquare()),
        PermaKeyObservation(MovingSquare(), keypoint_model, precision="float32"),
    )
    first, second = from_path.reset(seed=1)[0], from_model.reset(seed=1)[0]
    np.testing.assert_array_equal(first["keypoints"], second["keypoints"])


def test_streaming_is_the_default_and_sees_what_dense_detection_sees(float32_wrapper, checkpoint):
    streaming, dense = float32_wrapper(MovingSquare(5)), float32_wrapper(MovingSquare(5), streaming=False)
    together = VecPermaKeyObservation(DummyVecEnv([lambda: MovingSquare(5)]), checkpoint, device="cpu")
    assert streaming.detector.streaming == together.detector.streaming == (streaming.detector.device.type == "cpu")
    assert not dense.detector.streaming
    for seed in (0, 1, 0):
        found, expected = streaming.reset(seed=seed)[0], dense.reset(seed=seed)[0]
        for action in (0, 2, 2, 1, 0):
            for name, values in expected.items():
                np.testing.assert_allclose(found[name], values, atol=1e-4)
            found, expected = streaming.step(action)[0], dense.step(action)[0]


@pytest.mark.parametrize("settings", [{}, {"history": 2}, {**PEAKS, "history": 3}])
def test_single_and_vectorised_wrappers_give_equal_numbers(float32_wrapper, checkpoint, settings):
    lengths = (5, 7, 9)
    single = [float32_wrapper(MovingSquare(length), keep_image=True, **settings) for length in lengths]
    makers = [lambda length=length: MovingSquare(length) for length in lengths]
    together = VecPermaKeyObservation(DummyVecEnv(makers), checkpoint, keep_image=True, precision="float32", **settings)
    together.seed(0)
    found = together.reset()
    expected = [env.reset(seed=index)[0] for index, env in enumerate(single)]
    random, terminal_count = np.random.default_rng(0), 0
    for _ in range(12):
        for index, observation in enumerate(expected):
            for name, values in observation.items():
                np.testing.assert_allclose(found[name][index], values, atol=1e-5)
        actions = random.integers(3, size=3)
        found, rewards, dones, infos = together.step(actions)
        for index, env in enumerate(single):
            expected[index], reward, terminated, truncated, _ = env.step(actions[index])
            assert rewards[index] == pytest.approx(reward)
            assert dones[index] == (terminated or truncated)
            if dones[index]:
                terminal_count += 1
                for name, values in expected[index].items():
                    np.testing.assert_allclose(infos[index]["terminal_observation"][name], values, atol=1e-5)
                expected[index], _ = env.reset()
            else:
                assert "terminal_observation" not in infos[index]
    assert terminal_count == 4


class Counter(gym.Env):
    """Frames filled with the number of steps that all its episodes have taken; an episode takes three."""

    observation_space = spaces.Box(0, 255, (84, 84, 3), np.uint8)
    action_space = spaces.Discrete(2)
    count = -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.start = self.count + 1
        return self._next_frame(), {}

    def step(self, action):
        return self._next_frame(), 0.0, self.count == self.start + 3, False, {}

    def _next_frame(self):
        self.count += 1
        return np.full((84, 84, 3), self.count, np.uint8)


def alternating_peaks(frames):
    """Two points at rest, "0" above and "1" below, that change places in the order whenever the frame's number does."""
    turn = frames[:, 0, 0, 0] % 2
    names = np.stack([turn, 1 - turn], axis=1).astype(np.float32)
    centers = np.stack([2 * names - 1, np.zeros_like(names)], axis=-1)
    return Keypoints(centers, np.repeat(names[..., None], 64, axis=2), names)


def counter_settings(keypoint_model):
    return {"model_or_path": keypoint_model, "readout": "peaks", "num_keypoints": 2}


def test_peaks_keep_their_places_in_an_episode(keypoint_model):
    env = PermaKeyObservation(Counter(), **counter_settings(keypoint_model))
    env.detector.candidates = alternating_peaks
    for steps, first in ((2, 0.0), (3, 1.0)):  # the first frames are 0 and 3, whose first points are "0" and "1"
        observations = [env.reset()[0], *(env.step(0)[0] for _ in range(steps))]
        for observation in observations:
            assert observation["confidence"].tolist() == [first, 1 - first]
            assert observation["features"][:, 0].tolist() == [first, 1 - first]
            assert observation["keypoints"][:, 0].tolist() == [2 * first - 1, 1 - 2 * first]


def test_peaks_of_vectorised_environments_start_afresh_after_the_terminal_observation(keypoint_model):
    class Later(Counter):
        count = 0  # starts with frame 1, whose first point is "1"

    env = VecPermaKeyObservation(DummyVecEnv([Counter, Later]), **counter_settings(keypoint_model))
    env.detector.candidates = alternating_peaks
    assert env.reset()["confidence"].tolist() == [[0.0, 1.0], [1.0, 0.0]]
    env.venv.envs[1].unwrapped.start = 2  # its first episode takes four steps
    for _ in range(2):
        assert env.step([0, 0])[0]["confidence"].tolist() == [[0.0, 1.0], [1.0, 0.0]]
    observations, _, dones, infos = env.step([0, 0])
    assert dones.tolist() == [True, False]
    assert infos[0]["terminal_observation"]["confidence"].tolist() == [0.0, 1.0]  # frame 3 goes on with the episode
    assert observations["confidence"].tolist() == [[0.0, 1.0], [1.0, 0.0]]
    observations, _, dones, infos = env.step([0, 0])
    assert dones.tolist() == [False, True]
    assert infos[1]["terminal_observation"]["confidence"].tolist() == [1.0, 0.0]
    assert observations["confidence"].tolist() == [[0.0, 1.0], [0.0, 1.0]]  # frame 6 starts afresh


def white_square(frames):
    """One keypoint, on the white square."""
    columns = (frames[:, 43, :, 0] == 255).argmax(axis=1) + 2.5
    centers = np.stack([np.full(len(frames), 42.5), columns], axis=1)[:, None]
    centers = (2 * centers / 83 - 1).astype(np.float32)
    return Keypoints(centers, np.zeros((len(frames), 1, 64), np.float32), np.ones((len(frames), 1), np.float32))


def test_motion_of_a_square_with_the_terminal_observation_before_the_new_start(keypoint_model):
    settings = {"model_or_path": keypoint_model, "readout": "peaks", "num_keypoints": 1, "history": 2}
    env = VecPermaKeyObservation(DummyVecEnv([lambda: MovingSquare(3), lambda: MovingSquare(9)]), **settings)
    env.detector.candidates = white_square
    env.seed(0)
    assert env.observation_space["motion"].shape == (1, 4)
    np.testing.assert_array_equal(env.reset()["motion"], 0)
    step = 2 * 4 / 83
    np.testing.assert_allclose(env.step([2, 0])[0]["motion"][:, 0], [(0, step, 0, 0), (0, -step, 0, 0)], atol=1e-6)
    env.step([1, 0])
    observations, _, dones, infos = env.step([0, 1])
    assert dones.tolist() == [True, False]
    np.testing.assert_allclose(infos[0]["terminal_observation"]["motion"], [(0, -step, 0, 0)], atol=1e-6)
    np.testing.assert_allclose(observations["motion"][:, 0], [(0, 0, 0, 0), (0, 0, 0, -step)], atol=1e-6)
    np.testing.assert_allclose(env.step([2, 2])[0]["motion"][:, 0], [(0, step, 0, 0), (0, step, 0, 0)], atol=1e-6)
    assert all(env.observation_space.contains({name: part[0] for name, part in env.reset().items()}) for _ in range(2))


class OtherMaker(VecEnvWrapper):
    """Vectorised environments as GPU simulators and EnvPool have them.

    Episodes' last observations are None or missing, running environments have a None in their info, ends are numbers,
    rewards doubles.
    """

    def reset(self):
        return self.venv.reset()

    def step_wait(self):
        frames, rewards, dones, infos = self.venv.step_wait()
        for index, info in enumerate(infos):
            if not dones[index] or index == 0:
                info["terminal_observation"] = None
            else:
                del info["terminal_observation"]
        return frames, rewards.astype(np.float64), dones.astype(np.int64), infos


def test_episodes_start_anew_in_environments_that_do_not_tell_their_last_observation(keypoint_model):
    settings = {**counter_settings(keypoint_model), "history": 1}
    env = VecPermaKeyObservation(OtherMaker(DummyVecEnv([Counter, Counter])), **settings)
    env.detector.candidates = alternating_peaks
    env.reset()
    for _ in range(2):
        assert env.step([0, 0])[0]["confidence"].tolist() == [[0.0, 1.0], [0.0, 1.0]]
    observations, _, dones, infos = env.step([0, 0])
    assert dones.tolist() == [1, 1]
    assert infos == [{"TimeLimit.truncated": False}] * 2
    # Frame 4 starts afresh, whose first point is "0" as frame 0's was.
    assert observations["confidence"].tolist() == [[0.0, 1.0], [0.0, 1.0]]
    np.testing.assert_array_equal(observations["motion"], 0)


def test_an_agent_learns_in_environments_of_other_makers(checkpoint):
    def make(length):
        return lambda: TimeLimit(MovingSquare(100), length)

    env = OtherMaker(DummyVecEnv([make(5), make(7)]))
    # With an image, so that SB3 puts its VecTransposeImage around them.
    env = VecPreviousActionReward(VecPermaKeyObservation(env, checkpoint, keep_image=True, history=1, **PEAKS))
    model = RecurrentDQN("PermaKeyPolicy", env, seed=0, buffer_size=200, learning_starts=20, batch_size=4)
    model.learn(6e1)
    rewards, acted, numbers = (model.replay_buffer.contents()[name] for name in ("rewards", "acted", "written"))
    steps = model.num_timesteps // 2
    assert numbers.tolist() == [steps + steps // 5 + 1, steps + steps // 7 + 1]  # a last state for each episode
    assert rewards.dtype == np.float32
    first = model.replay_buffer.contents()["observation.previous_reward"][0, :, 0]
    np.testing.assert_allclose(first[1:6], [*rewards[0, :4], rewards[0, 3]])  # the last state is the one before it
    assert acted[0, :7].tolist() == [True] * 5 + [False, True]
    assert first[6] == 0


def test_motion_of_one_environment_starts_anew_with_the_episode(keypoint_model):
    env = PermaKeyObservation(MovingSquare(), keypoint_model, readout="peaks", num_keypoints=1, history=1)
    env.detector.candidates = white_square
    for seed in (0, 1):
        np.testing.assert_array_equal(env.reset(seed=seed)[0]["motion"], 0)
        np.testing.assert_allclose(env.step(2)[0]["motion"], [(0, 8 / 83)], atol=1e-6)


@pytest.mark.parametrize("history", [-1, 1.5, True, None])
def test_a_history_that_is_no_number_of_steps_is_refused_in_a_sentence(keypoint_model, history):
    with pytest.raises(ValueError, match="history must be a whole number of steps, 0 or more, not"):
        PermaKeyObservation(MovingSquare(), keypoint_model, history=history)


def test_keypoints_of_another_game_deserve_a_warning(checkpoint):
    with pytest.warns(UserWarning, match="the checkpoint mspacman was trained on MsPacman: .* what Seaquest shows"):
        PermaKeyObservation(make_atari_env("Seaquest"), "mspacman")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        PermaKeyObservation(make_atari_env("MsPacman"), "mspacman")
        PermaKeyObservation(MovingSquare(), checkpoint)


def test_agents_of_releases_that_ignored_settings_of_peaks_still_open(checkpoint, tmp_path):
    env = PermaKeyObservation(MovingSquare(), checkpoint)
    object.__setattr__(env.observation_space.readout, "surround_px", 18.0)
    RecurrentDQN("PermaKeyPolicy", env, buffer_size=100).save(tmp_path / "agent.zip")
    assert FrameAgent(tmp_path / "agent.zip", checkpoint).detector.readout == ReadoutConfig("pointnet", NUM_KEYPOINTS)


@pytest.mark.parametrize("history", [0, 2])
def test_agent_of_peaks_plays_the_same_from_frames(checkpoint, tmp_path, history):
    env = PermaKeyObservation(MovingSquare(), checkpoint, history=history, **PEAKS)
    model = RecurrentDQN("PermaKeyPolicy", env, seed=0, buffer_size=100, learning_starts=20, batch_size=4)
    model.learn(60)
    model.save(tmp_path / "agent.zip")
    agent = FrameAgent(tmp_path / "agent.zip", checkpoint)
    assert agent.detector.readout == env.observation_space.readout == ReadoutConfig(**PEAKS)
    seen = []
    agent.agent.predict = lambda observation, *args, **kwargs: (
        seen.append(observation) or RecurrentDQN.predict(agent.agent, observation, *args, **kwargs)
    )
    plain = MovingSquare()
    for seed in (1, 2):
        observation, _ = env.reset(seed=seed)
        frame, _ = plain.reset(seed=seed)
        state, done, starts = None, False, np.array([True])
        while not done:
            action, state = model.predict(observation, state, starts, deterministic=True)
            assert agent.act(frame[None], starts) == [action]
            assert seen[-1].keys() == observation.keys()
            for name, values in observation.items():
                np.testing.assert_allclose(seen[-1][name][0], values, atol=1e-3)
            observation, _, done, _, _ = env.step(action)
            frame, *_ = plain.step(action)
            starts = np.array([False])


def test_games_of_an_agent_that_go_on_keep_their_peaks(keypoint_model, checkpoint, tmp_path):
    env = PermaKeyObservation(Counter(), **counter_settings(keypoint_model))
    RecurrentDQN("PermaKeyPolicy", env, seed=0, buffer_size=100).save(tmp_path / "agent.zip")
    agent = FrameAgent(tmp_path / "agent.zip", checkpoint)
    agent.detector.candidates = alternating_peaks
    seen = []
    agent.agent.predict = lambda observation, *args, **kwargs: (
        seen.append(observation["confidence"].tolist())
        or RecurrentDQN.predict(agent.agent, observation, *args, **kwargs)
    )
    frames = np.stack([np.full((84, 84, 3), number, np.uint8) for number in range(4)])
    agent.act(frames[:2], np.array([True, True]))
    agent.keep([1])
    agent.act(frames[2:3], np.array([False]))
    agent.act(frames[2:3], np.array([True]))
    assert seen == [[[0.0, 1.0], [1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]]]


def test_space_travels_with_its_readout(float32_wrapper):
    space = float32_wrapper(MovingSquare(), **PEAKS).observation_space
    assert pickle.loads(pickle.dumps(space)).readout == ReadoutConfig("peaks", 6, 8.0)


def test_space_travels_with_its_history_and_older_ones_have_none(float32_wrapper):
    space = float32_wrapper(MovingSquare(), history=2).observation_space
    assert pickle.loads(pickle.dumps(space)).history == 2
    older = float32_wrapper(MovingSquare()).observation_space
    del older.__dict__["history"]
    assert pickle.loads(pickle.dumps(older)).history == 0


def test_space_travels_with_its_trunk(float32_wrapper):
    space = float32_wrapper(MovingSquare()).observation_space
    again = pickle.loads(pickle.dumps(space))
    assert again == space
    assert again.trunk.strides == (1, 2)
    np.testing.assert_array_equal(again.trunk.kernels[1], space.trunk.kernels[1])


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 255, (84, 84, 1), np.uint8),
        spaces.Box(0, 255, (96, 96, 3), np.uint8),
        spaces.Box(0, 1, (84, 84, 3), np.float32),
        spaces.Discrete(4),
    ],
)
def test_other_observations_are_refused_in_a_sentence(checkpoint, space):
    env = MovingSquare()
    env.observation_space = space
    with pytest.raises(
        ValueError, match=r"keypoints need observations of Box uint8 \(84, 84, 3\), but the environment has"
    ):
        PermaKeyObservation(env, checkpoint)


def test_checkpoints_that_do_not_fit_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(CheckpointError, match="no keypoint checkpoint at"):
        PermaKeyObservation(MovingSquare(), tmp_path / "nowhere.safetensors")
    with pytest.raises(CheckpointError, match=r"takes images of 1 channel\(s\), but the frames have 3"):
        PermaKeyObservation(MovingSquare(), PermaKey(PermaKeyConfig(image_channels=1)))


def test_wrapped_environment_is_a_gymnasium_environment(float32_wrapper):
    assert isinstance(float32_wrapper(MovingSquare()), gym.Env)
