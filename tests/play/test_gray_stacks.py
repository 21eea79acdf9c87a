import cv2
import gymnasium as gym
import numpy as np
import pytest
from conftest import square_frames
from stable_baselines3.common.atari_wrappers import WarpFrame

from sb3_permakey.play.saved_agents import GrayStack


@pytest.mark.parametrize("channels_first", [False, True])
def test_stacks_by_hand(channels_first):
    first, second, third = (np.full((1, 84, 84, 3), color, np.uint8) for color in ((255, 0, 0), (0, 255, 0), (0, 0, 9)))
    stack = GrayStack(2, channels_first=channels_first)
    values = []
    for frame, start in ((first, True), (second, False), (third, False), (first, True)):
        observation = stack.observe(frame, np.array([start]))
        assert observation.shape == ((1, 2, 84, 84) if channels_first else (1, 84, 84, 2))
        assert observation.dtype == np.uint8
        values.append(observation[0, :, 7, 7].tolist() if channels_first else observation[0, 7, 7].tolist())
    assert values == [[0, 76], [76, 150], [150, 1], [0, 76]]


def test_games_that_ended_are_dropped_from_the_stacks():
    frames = square_frames(6).reshape(2, 3, 84, 84, 3)
    frames[1] //= 2
    together, alone = GrayStack(3, channels_first=False), GrayStack(3, channels_first=False)
    together.observe(frames[0], np.ones(3, bool))
    together.keep([2])
    alone.observe(frames[0, 2:], np.ones(1, bool))
    expected = alone.observe(frames[1, 2:], np.zeros(1, bool))
    assert expected[..., 1].any()
    np.testing.assert_array_equal(together.observe(frames[1, 2:], np.zeros(1, bool)), expected)


def test_gray_frames_are_sb3s_own_but_for_rounding():
    raw = gym.make("ALE/MsPacman-v5", frameskip=1)
    raw.reset(seed=0)
    for _ in range(80):
        frame = raw.step(0)[0]
    theirs = WarpFrame(raw).observation(frame)[..., 0].astype(int)
    ours = cv2.resize(frame, (84, 84), interpolation=cv2.INTER_AREA)
    found = GrayStack(1, channels_first=False).observe(ours[None], np.array([True]))[0, ..., 0].astype(int)
    assert abs(found - theirs).max() <= 1
    assert theirs.std() > 20
