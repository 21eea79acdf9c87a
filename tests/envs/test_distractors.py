import numpy as np
import pytest
from conftest import MovingSquare
from gymnasium import spaces
from gymnasium.wrappers import GrayscaleObservation
from stable_baselines3.common.env_checker import check_env

from sb3_permakey import DistractorBars
from sb3_permakey.envs.distractors import BAR_COLOR, BarPlaces, draw_bars, places_by_index, random_places


def test_bars_are_drawn_where_the_places_say():
    frames = np.zeros((4, 12, 10, 3), np.uint8)
    noisy = draw_bars(frames, BarPlaces(tops=np.array([7, -1, 0, -1]), lefts=np.array([-1, 5, 2, -1])))
    expected = np.zeros((4, 12, 10), bool)
    expected[0, 7:12] = True
    expected[1, :, 5:10] = True
    expected[2, 0:5] = True
    expected[2, :, 2:7] = True
    np.testing.assert_array_equal((noisy == BAR_COLOR).all(axis=-1), expected)
    assert not noisy[~expected].any()
    assert not frames.any()


@pytest.mark.parametrize(("kind", "has_top", "has_left"), [("horizontal", 1, 0), ("vertical", 0, 1), ("both", 1, 1)])
def test_places_are_uniform_inside_the_frame(kind, has_top, has_left):
    random = np.random.default_rng(0)
    places = [random_places(kind, 9, 11, random) for _ in range(3000)]
    for values, present, count in ((0, has_top, 5), (1, has_left, 7)):
        found, counts = np.unique([place[values] for place in places], return_counts=True)
        assert found.tolist() == (list(range(count)) if present else [-1])
        np.testing.assert_allclose(counts / 3000, 1 / len(found), atol=0.03)


def test_both_bars_lie_where_each_would_alone():
    indices = np.arange(20)
    both = places_by_index("both", indices, (3,))
    np.testing.assert_array_equal(both.tops, places_by_index("horizontal", indices, (3,)).tops)
    np.testing.assert_array_equal(both.lefts, places_by_index("vertical", indices, (3,)).lefts)


def test_stored_frames_have_their_bars_whatever_is_read_with_them():
    all_places = places_by_index("both", np.arange(50), (1, 2))
    some = np.array([30, 4, 4, 49])
    for everywhere, again in zip(all_places, places_by_index("both", some, (1, 2)), strict=True):
        np.testing.assert_array_equal(again, everywhere[some])
    assert not np.array_equal(all_places.tops, places_by_index("both", np.arange(50), (1, 3)).tops)


def test_the_wrapper_draws_new_bars_and_names_their_places():
    noisy, clean = DistractorBars(MovingSquare(), "both"), MovingSquare()
    check_env(DistractorBars(MovingSquare(), "both"), warn=False)
    steps = [(*noisy.reset(seed=1), clean.reset(seed=1)[0])]
    for _ in range(30):
        observation, _, _, _, info = noisy.step(2)
        steps.append((observation, info, clean.step(2)[0]))
    for observation, info, frame in steps:
        bars = info["distractor_bars"]
        expected = draw_bars(frame[None], BarPlaces(np.array([bars["top"]]), np.array([bars["left"]])))[0]
        np.testing.assert_array_equal(observation, expected)
    for side in ("top", "left"):
        assert len({info["distractor_bars"][side] for _, info, _ in steps}) > 15


def test_a_seed_decides_the_bars():
    def bars(constructor_seed, reset_seed):
        env = DistractorBars(MovingSquare(), "both", seed=constructor_seed)
        infos = [env.reset(seed=reset_seed)[1], *(env.step(1)[4] for _ in range(5))]
        return [info["distractor_bars"] for info in infos]

    assert bars(None, 4) == bars(7, 4)
    assert bars(7, None) == bars(7, None)
    assert bars(None, 4) != bars(None, 5)


def test_wrong_kinds_and_observations_are_named():
    with pytest.raises(ValueError, match="distractor must be one of horizontal, vertical, both, not 'diagonal'"):
        DistractorBars(MovingSquare(), "diagonal")
    with pytest.raises(ValueError, match=r"Box uint8 \(H, W, 3\), but the environment has Box\(0, 255, \(84, 84\)"):
        DistractorBars(GrayscaleObservation(MovingSquare()), "both")
    env = MovingSquare()
    env.observation_space = spaces.Box(0, 255, (84, 84, 4), np.uint8)
    with pytest.raises(ValueError, match="distractors need RGB observations"):
        DistractorBars(env, "both")
