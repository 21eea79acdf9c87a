"""What the tests share: small keypoint models, a moving-square environment, frame stores of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import device_option
import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from sb3_permakey import PermaKeyObservation, RecurrentDQN
from sb3_permakey.cli import main
from sb3_permakey.envs.atari import PREPROCESSING
from sb3_permakey.envs.named import NamedEnvironment
from sb3_permakey.envs.own import make_own_env
from sb3_permakey.frames.store import FrameStore, write_store
from sb3_permakey.keypoints import PermaKey, PermaKeyConfig, ReadoutConfig, save_checkpoint
from sb3_permakey.keypoints.device import resolve_device
from sb3_permakey.viewing.session import Side, ViewSession, ViewSettings

NUM_KEYPOINTS = 4
CATCHING = "catching:Catching"
"""The name of an environment in examples/."""
PEAKS = ReadoutConfig("peaks", num_keypoints=3)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The device of tests that take one."""
    parser.addoption("--device", default="cpu", help="where agents and buffers are tested: cpu, cuda, ...")


def pytest_configure(config: pytest.Config) -> None:
    """Tests read it when they are imported."""
    try:
        device_option.DEVICE = str(resolve_device(config.getoption("--device")))
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error


@pytest.fixture
def keep_threads():
    """The number of torch's threads is afterwards what it was."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def one_thread(keep_threads):
    """The test runs on one of torch's threads."""
    torch.set_num_threads(1)


class MovingSquare(gym.Env):
    """A white square that moves left and right on a grey field; reward for its place; ends after some steps."""

    observation_space = spaces.Box(0, 255, (84, 84, 3), np.uint8)
    action_space = spaces.Discrete(3)

    def __init__(self, length: int = 20) -> None:
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.column, self.steps = int(self.np_random.integers(10, 70)), 0
        return self._frame(), {}

    def step(self, action):
        self.column = int(np.clip(self.column + 4 * (int(action) - 1), 4, 76))
        self.steps += 1
        return self._frame(), self.column / 84, self.steps >= self.length, False, {}

    def _frame(self) -> np.ndarray:
        frame = np.full((84, 84, 3), 60, np.uint8)
        frame[40:46, self.column : self.column + 6] = 255
        return frame


def square_frames(count: int, seed: int = 0) -> np.ndarray:
    """Frames of a MovingSquare under random actions."""
    env = MovingSquare(length=count)
    frame, _ = env.reset(seed=seed)
    random, frames = np.random.default_rng(seed), [frame]
    while len(frames) < count:
        frames.append(env.step(random.integers(3))[0])
    return np.stack(frames)


@pytest.fixture(scope="session")
def keypoint_model() -> PermaKey:
    """An untrained model whose BatchNorm statistics have seen frames."""
    torch.manual_seed(0)
    model = PermaKey(PermaKeyConfig(num_keypoints=NUM_KEYPOINTS))
    images = torch.from_numpy(square_frames(4)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        model.train().losses(images)
    return model.eval()


@pytest.fixture(scope="session")
def checkpoint(keypoint_model: PermaKey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of that model."""
    return save_checkpoint(keypoint_model, tmp_path_factory.mktemp("checkpoint") / "square.safetensors")


@pytest.fixture
def frame_store(tmp_path: Path) -> FrameStore:
    """A store of three episodes of the moving square."""
    episodes = [square_frames(40, seed=0), square_frames(8, seed=1), square_frames(8, seed=2)]
    description = {"game": "MovingSquare", "preprocessing": PREPROCESSING}
    return write_store(tmp_path / "frames", episodes, (0.7, 0.15, 0.15), description)


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules of tests/toys and examples can be imported, and named."""
    for folder in (Path(__file__).parent / "toys", Path(__file__).parents[1] / "examples"):
        monkeypatch.syspath_prepend(folder)


@pytest.fixture
def open_view(checkpoint: Path, toys: None) -> Iterator[Callable[..., ViewSession]]:
    """Opens the example of a falling ball to be viewed, with peaks beside PointNet where nothing else is said."""
    opened = []

    def open_view(**settings: Any) -> ViewSession:
        sides = (Side(str(checkpoint), PEAKS), Side(str(checkpoint)))
        environment = NamedEnvironment(env=CATCHING)
        opened.append(ViewSession(ViewSettings(**{"environment": environment, "sides": sides, **settings})))
        return opened[-1]

    yield open_view
    for session in opened:
        session.close()


@pytest.fixture
def save_agent(checkpoint: Path, tmp_path: Path, toys: None) -> Callable[..., Path]:
    """Saves an agent that sees the peaks of the example of a falling ball, and gives its file."""

    def save_agent(algorithm: Any = RecurrentDQN, policy: str = "PermaKeyPolicy", **arguments: Any) -> Path:
        env = PermaKeyObservation(make_own_env(CATCHING), checkpoint, readout=PEAKS)
        path = tmp_path / f"{algorithm.__name__}.zip"
        algorithm(policy, env, seed=0, **arguments).save(path)
        return path

    return save_agent


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line; its exit code, output and errors."""

    def run(*arguments: Any) -> tuple[int, str, str]:
        try:
            main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        output, errors = capsys.readouterr()
        return code, output, errors

    return run


@pytest.fixture
def refused(run: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """Runs a command line that must end with exit code 2 and one sentence, which it gives back."""

    def refused(*arguments: Any) -> str:
        code, _, errors = run(*arguments)
        sentences = [line for line in errors.splitlines() if line.startswith("sb3-permakey: ")]
        assert code == 2, errors
        assert len(sentences) == 1, errors
        assert "Traceback" not in errors
        return sentences[0]

    return refused


@pytest.fixture
def square_store(tmp_path: Path) -> FrameStore:
    """A store of 60 test frames, which are no Atari game's, in a folder whose name has a space."""
    episodes = [square_frames(60, seed) for seed in range(3)]
    return write_store(tmp_path / "my frames", episodes, (0.4, 0.3, 0.3), {"game": "Square", "preprocessing": None})
