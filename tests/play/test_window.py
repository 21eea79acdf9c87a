import sys

import numpy as np
import pytest
from conftest import MovingSquare
from stable_baselines3.common.monitor import Monitor

from sb3_permakey.envs.named import NamedEnvironment
from sb3_permakey.play.evaluation import play_games
from sb3_permakey.play.window import WindowError, in_window


class Rendered(MovingSquare):
    render_mode = "rgb_array"

    def render(self):
        return self._frame()[:, :42]


@pytest.fixture
def pygame(monkeypatch):
    """pygame without a screen; what its windows showed."""
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    pygame.display.quit()
    yield pygame
    pygame.display.quit()


def test_steps_are_shown_enlarged(pygame):
    env = in_window(Rendered(3), "square", 1000)
    env.reset(seed=1)
    for _ in range(3):
        env.step(2)
        shown = np.swapaxes(pygame.surfarray.array3d(pygame.display.get_surface()), 0, 1)
        assert shown.shape == (504, 252, 3)
        np.testing.assert_array_equal(shown[::6, ::6], env.unwrapped.render())
    env.close()
    assert pygame.display.get_surface() is None


def test_of_several_games_the_first_is_shown(pygame, monkeypatch):
    monkeypatch.setattr(NamedEnvironment, "make", lambda self, **_: Monitor(Rendered(next(lengths))))
    lengths, sizes = iter((2, 4)), []

    def choose(frames, starts, playing):
        surface = pygame.display.get_surface()
        sizes.append(surface and surface.get_size())
        return [1] * len(frames)

    monkeypatch.setattr("sb3_permakey.play.evaluation.FRAMES_PER_SECOND", 1000)
    play_games(NamedEnvironment(env="square"), [1, 2], choose, "test", show=True)
    assert sizes == [(252, 504)] * 4
    assert pygame.display.get_surface() is None


def test_an_atari_game_renders_its_own_picture():
    pytest.importorskip("ale_py")
    env = NamedEnvironment("Pong").make(render=True)
    env.reset(seed=0)
    assert (env.render_mode, env.render().shape) == ("rgb_array", (210, 160, 3))


def test_what_cannot_be_shown_is_told(pygame, monkeypatch):
    with pytest.raises(WindowError, match="square cannot be shown: its render_mode is None, not 'rgb_array'"):
        in_window(MovingSquare(), "square", 15)
    monkeypatch.delenv("SDL_VIDEODRIVER")
    monkeypatch.setattr(pygame.display, "get_driver", lambda: "offscreen")
    with pytest.raises(WindowError, match="there is no display"):
        in_window(Rendered(), "square", 15)
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(ImportError, match=r"A window needs pygame: pip install .*\[window\]"):
        in_window(Rendered(), "square", 15)
