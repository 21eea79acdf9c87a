"""Runs of `train` that meet what is in their folder already."""

import json
import shutil

import pytest
import torch
from conftest import NUM_KEYPOINTS, MovingSquare
from stable_baselines3.common.monitor import Monitor

from sb3_permakey import RecurrentDQN
from sb3_permakey.common.run_checkpoint import RunCheckpoint
from sb3_permakey.envs import named
from sb3_permakey.files import InUseError, locked_folder
from sb3_permakey.keypoints import PermaKey, PermaKeyConfig, ReadoutConfig, save_checkpoint
from sb3_permakey.training.run import TrainConfig, train
from sb3_permakey.training.validation import Validation, validation_scores

SETTINGS = {
    "game": "MsPacman",
    "steps": 60,
    "learning_starts": 10,
    "batch_size": 2,
    "buffer_size": 100,
    "validate_every": 20,
    "validation_episodes": 1,
    "save_every": 20,
    "device": "cpu",
}


@pytest.fixture(autouse=True)
def squares(monkeypatch):
    """Games of five steps instead of Atari's; the seeds with which they were made."""
    seeds = []

    def make(game, seed, **_):
        seeds.append(seed)
        return Monitor(MovingSquare(5))

    monkeypatch.setattr(named, "make_atari_env", make)
    return seeds


@pytest.fixture
def run(tmp_path):
    """Trains in one folder; the steps of the final model."""

    def run(**settings):
        train(TrainConfig(**{**SETTINGS, "out": tmp_path / "run", **settings}))
        return RecurrentDQN.load(tmp_path / "run" / "final_model.zip").num_timesteps

    return run


@pytest.fixture
def killed(run, monkeypatch):
    """The same run, killed at a step."""

    def killed(at, **settings):
        def on_step(callback):
            if callback.num_timesteps == at:
                raise KeyboardInterrupt
            return True

        with monkeypatch.context() as patch:
            patch.setattr(RunCheckpoint, "_on_step", on_step)
            with pytest.raises(KeyboardInterrupt):
                run(**settings)

    return killed


def validated_after(folder):
    return [step for step, _ in validation_scores(folder)]


def test_a_finished_run_goes_on_to_more_steps_and_says_so(run, killed, tmp_path):
    assert run() == 60
    before = (tmp_path / "run" / "final_model.zip").stat().st_mtime_ns
    for steps in (60, 50):
        with pytest.raises(ValueError, match=f"already holds a trained agent, after 60 steps: .* these {steps}, or"):
            run(steps=steps)
    assert (tmp_path / "run" / "final_model.zip").stat().st_mtime_ns == before
    assert run(steps=80, save_every=10) == 80
    assert validated_after(tmp_path / "run") == [20, 40, 60, 80]
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (written["steps"], written["save_every"]) == (80, 10)
    assert [(one["after_steps"], one["steps"]) for one in written["went_on"]] == [(60, 80)]
    killed(at=110, steps=120)
    assert run(steps=120) == 120
    shutil.rmtree(tmp_path / "run" / "run")
    with pytest.raises(ValueError, match="a trained agent without the replay buffer, which more steps need"):
        run(steps=200)


def test_a_killed_run_goes_on_by_resume_alone_and_not_to_fewer_steps(run, killed):
    killed(at=50)
    with pytest.raises(ValueError, match="holds a run that was killed; go on with it by --resume"):
        run()
    with pytest.raises(ValueError, match="has made 40 steps already; give at least as many --steps, not 30"):
        run(resume=True, steps=30)
    assert run(resume=True) == 60


def test_changed_settings_are_named_and_nothing_is_touched(run, killed, tmp_path, checkpoint):
    killed(at=50, checkpoint=checkpoint)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    torch.manual_seed(1)
    other = save_checkpoint(PermaKey(PermaKeyConfig(num_keypoints=NUM_KEYPOINTS)), tmp_path / "other.safetensors")
    for changed, message in (
        ({"seed": 1}, "seed 0, not 1"),
        ({"batch_size": 4, "learning_rate": 1e-3}, r"learning_rate 0.0002, not 0.001; batch_size 2, not 4"),
        ({"num_envs": 2}, "num_envs 1, not 2"),
        ({"validation_episodes": 2}, "validation_episodes 1, not 2"),
        ({"checkpoint": other}, "checkpoint_sha256 [0-9a-f]{24}, not [0-9a-f]{24}"),
        (
            {"checkpoint": None},
            "encoder gnn, not None; readout pointnet, not None; checkpoint_sha256 [0-9a-f]{24}, not None",
        ),
        ({"readout": ReadoutConfig("peaks")}, "readout pointnet, not peaks"),
    ):
        with pytest.raises(ValueError, match=rf"holds a run with other settings \({message}\): go on with its own"):
            run(**{"checkpoint": checkpoint, "resume": True, **changed})
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    moved = shutil.copy(checkpoint, tmp_path / "moved.safetensors")
    assert run(checkpoint=moved, resume=True, learning_rate=2e-4) == 60


def test_a_run_of_an_older_release_goes_on(run, killed, tmp_path):
    killed(at=50)
    path = tmp_path / "run" / "config.json"
    written = json.loads(path.read_text())
    for name in ("checkpoint_sha256", "algo", "history"):
        del written[name]
    path.write_text(json.dumps({**written, "game": "ALE/MsPacman-v5", "encoder": "gnn"}))
    assert run(resume=True) == 60


def test_a_run_that_died_early_leaves_nothing_to_the_next(run, killed, tmp_path, monkeypatch):
    killed(at=25, save_every=1000)
    assert validated_after(tmp_path / "run") == [20]
    with pytest.raises(ValueError, match=r"holds a run with other settings \(seed 0, not 1\)"):
        run(seed=1)
    scores = iter([[-5.0], [-7.0], [-6.0]])
    monkeypatch.setattr("sb3_permakey.training.validation.evaluate_policy", lambda *args, **kwargs: (next(scores), [5]))
    run()
    # The dead run's best score was higher.
    assert validation_scores(tmp_path / "run") == [(20, -5.0), (40, -7.0), (60, -6.0)]
    assert RecurrentDQN.load(tmp_path / "run" / "best_model.zip").num_timesteps == 20


def test_files_of_unknown_runs_are_left_alone(run, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best_model.zip").write_bytes(b"somebody's")
    with pytest.raises(ValueError, match="run holds best_model.zip but not the settings that made them"):
        run()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["best_model.zip"]


def test_a_second_run_in_the_folder_is_refused_and_harms_nothing(run, tmp_path, monkeypatch):
    validate = Validation.validate

    def meanwhile(self):
        with pytest.raises(InUseError, match="another run is writing .*run: wait for its end"):
            train(TrainConfig(**{**SETTINGS, "out": tmp_path / "run", "seed": 5, "resume": True}))
        return validate(self)

    monkeypatch.setattr(Validation, "validate", meanwhile)
    assert run() == 60
    assert validated_after(tmp_path / "run") == [20, 40, 60]
    with locked_folder(tmp_path / "run"):
        pass


def test_environments_of_a_resumed_run_have_new_seeds_and_those_of_validation_the_next(run, killed, monkeypatch):
    seeds = []

    class Seeded(MovingSquare):
        def reset(self, *, seed=None, options=None):
            seeds.append(seed)
            return super().reset(seed=seed)

    monkeypatch.setattr(named, "make_atari_env", lambda *args, **kwargs: Monitor(Seeded(5)))
    killed(at=50)
    first = [seed for seed in seeds if seed is not None]
    assert first == [0, 1_000_000, 1_000_001]
    seeds.clear()
    run(resume=True)
    resumed, validated = (seed for seed in seeds if seed is not None)
    assert resumed > 2**29
    assert validated == 1_000_002
