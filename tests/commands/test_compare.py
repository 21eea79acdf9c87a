import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.monitor import Monitor

from sb3_permakey.cli import main
from sb3_permakey.commands.compare import CompareConfig, compare


@pytest.fixture
def runs(tmp_path):
    """Two seeds of one setting and one of another, as `train` leaves them."""
    folders = []
    for name, scores in (("dqn-1", [[1, 3], [3, 5]]), ("dqn-2", [[2, 2], [6, 6]]), ("a|b", [[1, 1], [0, 0]])):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "evaluations.npz", timesteps=[500, 1000], results=scores, ep_lengths=scores)
        folders.append(tmp_path / name)
    return folders


def test_table_and_picture(runs, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    main(["compare", *map(str, runs), "--out", str(tmp_path / "compare.png")])
    output = capsys.readouterr().out
    assert output.splitlines()[:5] == [
        f"{tmp_path / 'compare.png'}: the learning curves",
        "| setting | runs | steps | final | best |",
        "|---|---|---|---|---|",
        "| dqn | 2 | 1,000 | 5.0 (-7.7 to 17.7) | 5.0 (-7.7 to 17.7) |",
        "| a\\|b | 1 | 1,000 | 0.0 (0.0 to 0.0) | 1.0 (1.0 to 1.0) |",
    ]
    assert "Where there is one run, the interval is over its games" in output
    picture = np.asarray(Image.open(tmp_path / "compare.png").convert("RGB"))
    for color in ((31, 119, 180), (255, 127, 14)):  # matplotlib's first two colours: both curves are drawn
        assert (picture == color).all(axis=-1).sum() > 100


def test_without_matplotlib_there_is_the_table(runs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError, match=r"Learning curves need matplotlib: pip install .*\[curves\]"):
        compare(CompareConfig(tuple(runs), tmp_path / "compare.png"))
    assert "| dqn | 2 |" in compare(CompareConfig(tuple(runs)))


def test_files_of_sb3_itself(tmp_path):
    for seed in range(2):
        folder = tmp_path / f"ppo-{seed}"
        folder.mkdir()
        env = Monitor(gym.make("CartPole-v1"), str(folder))
        validation = EvalCallback(
            Monitor(gym.make("CartPole-v1")), log_path=str(folder), eval_freq=64, n_eval_episodes=2, verbose=0
        )
        PPO("MlpPolicy", env, n_steps=64, n_epochs=1, seed=seed, device="cpu").learn(256, callback=validation)
    folders = tuple(sorted(tmp_path.iterdir()))
    assert "| ppo | 2 | 256 |" in compare(CompareConfig(folders))
    assert "means of the last 100 training episodes" in compare(CompareConfig(folders, scores="episodes"))


def test_settings_that_cannot_be(tmp_path):
    with pytest.raises(ValueError, match="name at least one run's folder"):
        CompareConfig(())
    with pytest.raises(ValueError, match="out must name a .png file, not x.pdf"):
        CompareConfig((tmp_path,), Path("x.pdf"))
