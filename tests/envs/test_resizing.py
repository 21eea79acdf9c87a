import gymnasium as gym
import numpy as np
import pytest
from conftest import MovingSquare
from gymnasium import spaces
from gymnasium.wrappers import ResizeObservation, TransformObservation
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_permakey import PermaKeyObservation, ResizeFrames, VecPermaKeyObservation, VecResizeFrames


def small(shape=(64, 64, 3), length=5):
    """A moving square whose frames are cut, or made gray."""

    def cut(frame):
        frame = frame[10 : 10 + shape[0], : shape[1]]
        return frame if len(shape) == 3 and shape[2] == 3 else frame[..., 0].reshape(shape)

    return TransformObservation(MovingSquare(length), cut, spaces.Box(0, 255, shape, np.uint8))


@pytest.mark.parametrize("shape", [(64, 64, 3), (64, 84, 3), (64, 64, 1), (64, 64)])
def test_frames_are_resized_as_gymnasium_does_it_in_vectorised_environments_too(shape):
    gray = len(shape) == 2 or shape[2] == 1
    reference = ResizeObservation(small(shape), (84, 84))
    single = ResizeFrames(small(shape), repeat_gray=gray)
    together = VecResizeFrames(DummyVecEnv([lambda: small(shape), lambda: small(shape, length=9)]), repeat_gray=gray)
    assert single.observation_space == together.observation_space == spaces.Box(0, 255, (84, 84, 3), np.uint8)

    def channels(frame):
        return np.broadcast_to(frame.reshape(84, 84, -1), (84, 84, 3))

    together.seed(0)
    frames = together.reset()
    expected = channels(reference.reset(seed=0)[0])
    np.testing.assert_array_equal(single.reset(seed=0)[0], expected)
    assert frames.shape == (2, 84, 84, 3)
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(frames[0], expected)
    for _ in range(5):
        frames, _, dones, infos = together.step([2, 0])
        expected = channels(reference.step(2)[0])
        np.testing.assert_array_equal(single.step(2)[0], expected)
        np.testing.assert_array_equal(infos[0]["terminal_observation"] if dones[0] else frames[0], expected)
    assert dones.tolist() == [True, False]
    assert not np.array_equal(frames[0], expected)


def test_frames_of_that_size_stay_as_they_are():
    env, plain = ResizeFrames(MovingSquare()), MovingSquare()
    np.testing.assert_array_equal(env.reset(seed=0)[0], plain.reset(seed=0)[0])


def test_keypoints_of_small_and_gray_frames(checkpoint):
    env = PermaKeyObservation(ResizeFrames(small((64, 64)), repeat_gray=True), checkpoint)
    check_env(env, warn=False)
    venv = VecPermaKeyObservation(VecResizeFrames(DummyVecEnv([small])), checkpoint)
    venv.reset()
    assert venv.step([1])[0]["keypoints"].shape == (1, 4, 2)


def test_a_last_frame_that_is_not_told_is_no_entry():
    class Untold(DummyVecEnv):
        def step_wait(self):
            frames, rewards, dones, infos = super().step_wait()
            return frames, rewards, dones, [{"terminal_observation": None} for _ in infos]

    venv = VecResizeFrames(Untold([lambda: small(length=1)]))
    venv.reset()
    frames, _, dones, infos = venv.step([0])
    assert dones.tolist() == [True]
    assert frames.shape == (1, 84, 84, 3)
    assert infos == [{}]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Box(0, 255, (64, 64, 1), np.uint8), "gray frames.*: repeat_gray=True repeats them to three channels"),
        (spaces.Box(0, 255, (64, 64), np.uint8), "gray frames.*: repeat_gray=True repeats them to three channels"),
        (spaces.Box(0, 255, (3, 64, 64), np.uint8), "3 channels, or 1, in the last axis, but the environment has 64"),
        (spaces.Box(0, 255, (64, 64, 4), np.uint8), "3 channels, or 1, in the last axis, but the environment has 4"),
        (spaces.Box(0, 1, (64, 64, 3), np.float32), r"frames to resize are Box uint8 \(H, W, 3\), or gray, but"),
        (spaces.Discrete(3), r"frames to resize are Box uint8 \(H, W, 3\), or gray, but the environment has Discrete"),
    ],
)
def test_other_observations_are_refused_in_a_sentence(space, message):
    env = MovingSquare()
    env.observation_space = space
    with pytest.raises(ValueError, match=message):
        ResizeFrames(env)
    with pytest.raises(ValueError, match=message):
        VecResizeFrames(DummyVecEnv([lambda: env]))


def test_wrapped_environment_is_a_gymnasium_environment():
    assert isinstance(ResizeFrames(MovingSquare()), gym.Env)
