import pickle

import gymnasium as gym
import numpy as np
import pytest
from conftest import NUM_KEYPOINTS, MovingSquare
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_permakey import PermaKeyObservation, VecPermaKeyObservation, make_atari_env
from sb3_permakey.keypoints import CheckpointError, PermaKey, PermaKeyConfig


@pytest.fixture
def float32_wrapper(checkpoint):
    return lambda env, **kwargs: PermaKeyObservation(env, checkpoint, precision="float32", **kwargs)


@pytest.mark.parametrize("keep_image", [False, True])
def test_space_and_environment_checks(float32_wrapper, keep_image):
    env = float32_wrapper(MovingSquare(), keep_image=keep_image)
    shapes = {name: space.shape for name, space in env.observation_space.spaces.items()}
    expected = {"keypoints": (NUM_KEYPOINTS, 2), "features": (NUM_KEYPOINTS, 64)}
    assert shapes == (expected | {"image": (84, 84, 3)} if keep_image else expected)
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


def test_single_and_vectorised_wrappers_give_equal_numbers(float32_wrapper, checkpoint):
    lengths = (5, 7, 9)
    single = [float32_wrapper(MovingSquare(length), keep_image=True) for length in lengths]
    makers = [lambda length=length: MovingSquare(length) for length in lengths]
    together = VecPermaKeyObservation(DummyVecEnv(makers), checkpoint, keep_image=True, precision="float32")
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
