import os
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import AddRenderObservation, ResizeObservation

from sb3_permakey.envs.distractors import BAR_COLOR, BAR_WIDTH_PX
from sb3_permakey.envs.named import NamedEnvironment
from sb3_permakey.envs.own import OwnEnvironmentError, make_own_env, require_discrete_actions

ROOT = Path(__file__).parents[2]
FAULTY = """
import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

class NoImage(gym.Env):
    observation_space = spaces.Box(0, 1, (3,))
    action_space = spaces.Discrete(2)

class NoPicture(NoImage):
    metadata = {"render_modes": ["rgb_array"]}
    render_mode = "rgb_array"
    def reset(self, **kwargs):
        return self.observation_space.sample(), {}
    def render(self):
        return [0]

class FromOne(NoImage):
    action_space = spaces.Discrete(2, start=1)

number = 3
def make_number():
    return 3
def make_several():
    return DummyVecEnv([NoImage])
def make_with(size):
    return NoImage()
def make_none():
    raise KeyError("lost")
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The present folder, with modules `faulty` and `broken`, beside the toys; what was imported is forgotten."""
    (tmp_path / "faulty.py").write_text(FAULTY)
    (tmp_path / "broken.py").write_text("import nothing_like_it\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(ROOT / "examples"), str(ROOT / "tests/toys"), *sys.path])
    yield tmp_path
    for name in ("faulty", "broken", "catching", "catching_otherwise"):
        sys.modules.pop(name, None)


def test_modules_are_found_in_the_present_folder_and_frames_resized_whole(here):
    from catching import Catching

    env, reference = make_own_env("catching:make_env", seed=3), Catching("rgb_array")
    assert env.observation_space == spaces.Box(0, 255, (84, 84, 3), np.uint8)
    reference = ResizeObservation(AddRenderObservation(reference), (84, 84))
    expected, _ = reference.reset(seed=4)
    np.testing.assert_array_equal(env.reset(seed=4)[0], expected)
    # The ball is 6 of 96 pixels wide and of 48 high: nothing is cropped.
    frame = env.step(1)[0]
    rows, columns = np.nonzero(frame[:70, :, 0] > 120)
    assert np.ptp(rows) + 1 == pytest.approx(6 / 48 * 84, abs=1.5)
    assert np.ptp(columns) + 1 == pytest.approx(6 / 96 * 84, abs=1.5)
    assert (here / "faulty.py").exists()
    with pytest.raises(OwnEnvironmentError, match="NoImage shows no image"):
        make_own_env("faulty:NoImage")  # found in the present folder


@pytest.mark.parametrize("name", ["catching:Catching", "catching_otherwise:make_gray"])
def test_other_observations_are_rendered_and_gray_frames_repeated(here, name):
    env = make_own_env(name)
    frame, _ = env.reset(seed=4)
    colour, _ = make_own_env("catching:make_env").reset(seed=4)
    expected = colour if name.endswith("Catching") else np.repeat(colour[..., :1], 3, axis=-1)
    np.testing.assert_array_equal(frame, expected)
    done = False
    while not done:
        _, _, terminated, truncated, info = env.step(0)
        done = terminated or truncated
    assert info["episode"]["l"] == 7


def test_an_id_of_gymnasium_is_rendered():
    pytest.importorskip("pygame")
    env = make_own_env("CartPole-v1", seed=0, max_steps=2)
    frame, _ = env.reset(seed=1)
    assert frame.shape == (84, 84, 3)
    assert len(np.unique(frame.reshape(-1, 3), axis=0)) > 3
    assert [env.step(0)[3] for _ in range(2)] == [False, True]


def test_bars_and_seeds(here):
    def actions_and_frame(seed):
        env = make_own_env("catching:make_env", seed=seed, distractor="both")
        return [int(env.action_space.sample()) for _ in range(20)], env.reset(seed=seed)[0]

    first, again, other = (actions_and_frame(seed) for seed in (1, 1, 2))
    assert first[0] == again[0] != other[0]
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[1] == BAR_COLOR).all(axis=(1, 2)).sum() == BAR_WIDTH_PX


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nowhere:make_env", "there is no module 'nowhere', in the present folder or installed"),
        ("faulty.inner:make_env", "faulty.inner"),
        ("./faulty.py:make_env", "written with dots and without .py"),
        ("broken:make_env", "the module broken could not be imported: ModuleNotFoundError: No module named 'nothing_"),
        ("faulty:make_numbers", "the module faulty has no function 'make_numbers'; the nearest name is 'make_number'"),
        ("faulty:number", "faulty:number is no function but a int"),
        ("faulty:make_number", "faulty:make_number returns a int, not a gymnasium.Env"),
        ("faulty:make_several", r"returns vectorised environments \(DummyVecEnv\)"),
        ("faulty:make_with", "could not be made: TypeError: .*missing 1 required positional argument: 'size'"),
        ("faulty:make_none", r"could not be made: KeyError: 'lost' \(faulty.py, line 29\)"),
        ("faulty:NoImage", r"shows no image: its observations are Box.*, not Box uint8 .* render_mode is None"),
        ("faulty:NoPicture", "faulty:NoPicture could not be made: TypeError: AddRenderObservation expects"),
        ("CartPol-v1", "gymnasium knows no environment 'CartPol-v1': the nearest name is 'CartPole-v1'; one of your"),
        ("faulty:Lost-v0", "gymnasium knows no environment 'Lost-v0'"),
        ("ALE/Pong-v5", "ALE/Pong-v5 is an Atari game: give it as the game, not as an env"),
    ],
)
def test_one_sentence_for_each_fault(here, name, sentence):
    with pytest.raises(OwnEnvironmentError, match=sentence) as error:
        make_own_env(name)
    assert "\n" not in str(error.value)


def test_agents_choose_among_discrete_actions(here):
    assert require_discrete_actions(spaces.Discrete(3), "x").n == 3
    with pytest.raises(OwnEnvironmentError, match="catching_otherwise:make_continuous has continuous actions Box"):
        NamedEnvironment(env="catching_otherwise:make_continuous").actions()
    with pytest.raises(OwnEnvironmentError, match="counted from 0"):
        require_discrete_actions(gym.make("CartPole-v1").action_space.__class__(2, start=1), "x")


def test_exactly_one_of_game_and_env(here):
    with pytest.raises(ValueError, match="give one of game, env, not none"):
        NamedEnvironment()
    with pytest.raises(ValueError, match="give one of game, env, not game and env"):
        NamedEnvironment("Pong", "catching:make_env")


def test_names_flags_and_files():
    pytest.importorskip("ale_py")
    game, own = NamedEnvironment("mspacman"), NamedEnvironment(env="my.catching:Catching")
    assert (game.id, game.name, game.flags) == ("ALE/MsPacman-v5", "MsPacman", ("--game", "MsPacman"))
    assert (own.id, own.name, own.flags) == (own.env, own.env, ("--env", own.env))
    assert (game.file_name, own.file_name) == ("MsPacman", "my.catching-Catching")
    assert game.make(training=False).observation_space.shape == (84, 84, 3)
    assert os.sep not in own.file_name
