import re
import subprocess
import sys
import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from short_runs import SHORT, as_numbers, config_for, losses_of

from sb3_permakey.envs.distractors import draw_bars, places_by_index
from sb3_permakey.files import InUseError, WriteError, locked_folder
from sb3_permakey.frames.reader import FrameReader
from sb3_permakey.frames.store import FrameStoreError
from sb3_permakey.keypoints import (
    PermaKey,
    PermaKeyConfig,
    PermaKeyLosses,
    Transporter,
    checkpoint_metadata,
    load_checkpoint,
)
from sb3_permakey.keypoints.lspn import lspn_loss, patch_errors, to_patches
from sb3_permakey.pretraining.state import StateError, load_state
from sb3_permakey.pretraining.trainer import Pretraining, pretrain
from sb3_permakey.pretraining.unread_losses import TrainingDivergedError


@pytest.mark.parametrize("schedule", ["joint", "staged"])
def test_a_run_leaves_checkpoint_losses_and_tensorboard(frame_store, tmp_path, schedule):
    config = config_for(frame_store, tmp_path / "model.safetensors", schedule=schedule, max_steps=10)
    assert pretrain(config) == config.out
    assert load_checkpoint(config.out).config == config.model
    rows = losses_of(config)
    assert [int(row["step"]) for row in rows if row["split"] == "train"] == list(
        range(1, 11 if schedule == "joint" else 21)
    )
    assert [int(row["step"]) for row in rows if row["split"] == "valid"] == ([10] if schedule == "joint" else [10, 20])
    assert list((config.out.with_suffix(".pretraining") / "tensorboard").iterdir())
    first, last = as_numbers(rows)[0], as_numbers(rows)[-1]
    if schedule == "staged":
        assert first[3] == 0
        assert last[3] > 0
        assert list(last[:3]) == [0, 0, 0]
    else:
        assert (first > 0).all()


def test_a_run_is_the_plain_loop_to_the_bit(frame_store, tmp_path):
    config = config_for(frame_store, tmp_path / "model.safetensors")
    torch.manual_seed(config.seed)
    model = config.make_model().to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4)
    frames, losses = frame_store.splits["train"], []
    order = np.random.default_rng((config.seed, 0, 0)).permutation(len(frames))
    for step in range(4):
        indices = np.sort(order[4 * step : 4 * step + 4])
        noise = [np.random.default_rng((config.seed, step, index)).standard_normal(32) for index in indices]
        images = torch.from_numpy(frames[indices]).permute(0, 3, 1, 2).float() / 255
        losses.append(model.losses(images, torch.tensor(np.array(noise), dtype=torch.float32)))
        optimizer.zero_grad()
        model.total_loss(losses[-1]).backward()
        optimizer.step()
    trained = load_checkpoint(pretrain(config))
    np.testing.assert_array_equal(as_numbers(losses_of(config)), [[float(part) for part in row] for row in losses])
    torch.testing.assert_close(trained.state_dict(), model.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("settings", [{"lspn_stride": 3}, {"method": "transporter", "model": PermaKeyConfig()}])
def test_losses_that_are_compiled_are_one_graph_and_the_same(frame_store, tmp_path, monkeypatch, settings):
    """With torch's tracing, but its own operations in place of generated code, which takes minutes to make."""
    asked = []

    def traced(function, mode):
        asked.append(mode)
        return compile_(function, backend="eager", fullgraph=True)

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", traced)
    plain, compiled = (
        config_for(frame_store, tmp_path / f"{name}.safetensors", max_steps=2, compile=name == "compiled", **settings)
        for name in ("plain", "compiled")
    )
    pretrain(plain)
    assert not asked
    pretrain(compiled)
    assert asked == [None]
    assert losses_of(plain) == losses_of(compiled)


def test_losses_fall(frame_store, tmp_path):
    config = config_for(frame_store, tmp_path / "model.safetensors", max_steps=30, learning_rate=1e-3)
    pretrain(config)
    numbers = as_numbers([row for row in losses_of(config) if row["split"] == "train"])
    assert (numbers[-5:].mean(axis=0) < numbers[:5].mean(axis=0))[[0, 2]].all()


@pytest.mark.parametrize("schedule", ["joint", "staged"])
def test_a_killed_run_has_the_same_loss_curve(frame_store, tmp_path, one_thread, schedule):
    # The process below has one thread too: another number rounds otherwise, which fourteen steps make visible.
    whole = config_for(frame_store, tmp_path / "whole.safetensors", schedule=schedule, max_steps=14)
    pretrain(whole)
    killed = replace(whole, out=tmp_path / "killed.safetensors", save_every_s=0)
    flags = {
        "frames": killed.frames,
        "out": killed.out,
        "num-keypoints": 3,
        "layers": 1,
        "schedule": schedule,
        "max-steps": 14,
        "save-every-s": 0,
        **{name.replace("_", "-"): value for name, value in SHORT.items() if name != "max_steps"},
    }
    arguments = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    command = [
        sys.executable,
        "-c",
        "import torch; torch.set_num_threads(1); from sb3_permakey.cli import main; main()",
    ]
    process = subprocess.Popen([*command, "pretrain", *arguments], stderr=subprocess.DEVNULL)
    kill_at = 18 if schedule == "staged" else 8
    losses = killed.out.with_suffix(".pretraining") / "losses.csv"
    while process.poll() is None and not (losses.exists() and len(losses.read_text().splitlines()) > kill_at):
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not killed.out.exists(), "the kill came too late to test anything"
    pretrain(killed)
    steps = [(row["step"], row["split"]) for row in losses_of(killed)]
    assert steps == [(row["step"], row["split"]) for row in losses_of(whole)]
    np.testing.assert_allclose(as_numbers(losses_of(killed)), as_numbers(losses_of(whole)), rtol=1e-3)


def test_threads_are_chosen_said_and_given_back(frame_store, tmp_path, monkeypatch, keep_threads, capsys):
    torch.set_num_threads(2)
    monkeypatch.setattr("sb3_permakey.pretraining.trainer.threads_are_free", lambda device, processes: processes == 1)
    monkeypatch.setattr("sb3_permakey.pretraining.threads.TIMED_STEPS", 1)
    pretrain(config_for(frame_store, tmp_path / "model.safetensors", max_steps=5))
    said = capsys.readouterr().out
    assert re.search(r"PointNet: [12] of 2 threads \(a step takes \d+\.\d\d s on 1, \d+\.\d\d s on 2\)", said), said
    assert torch.get_num_threads() == 2


def test_a_finished_run_is_not_done_again(frame_store, tmp_path):
    config = config_for(frame_store, tmp_path / "model.safetensors")
    pretrain(config)
    before = config.out.stat().st_mtime_ns
    pretrain(config)
    assert config.out.stat().st_mtime_ns == before
    config.out.unlink()
    pretrain(config)
    assert load_checkpoint(config.out).config == config.model


@pytest.mark.parametrize("schedule", ["joint", "staged"])
def test_a_finished_run_goes_on_to_what_a_longer_one_is(frame_store, tmp_path, schedule):
    short = config_for(frame_store, tmp_path / "short.safetensors", schedule=schedule, max_steps=4)
    pretrain(short)
    staged = {"pointnet_steps": 14} if schedule == "staged" else {}
    longer = replace(short, **(staged or {"max_steps": 14}))
    pretrain(longer)
    whole = replace(longer, out=tmp_path / "whole.safetensors")
    pretrain(whole)
    assert [row["step"] for row in losses_of(longer)] == [row["step"] for row in losses_of(whole)]
    np.testing.assert_allclose(as_numbers(losses_of(longer)), as_numbers(losses_of(whole)), rtol=1e-3)
    found, expected = load_checkpoint(longer.out).state_dict(), load_checkpoint(whole.out).state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)


def test_a_finished_first_stage_stays_and_says_so(frame_store, tmp_path):
    config = config_for(frame_store, tmp_path / "model.safetensors", schedule="staged", max_steps=3)
    before = load_checkpoint(pretrain(config)).state_dict()
    with pytest.warns(UserWarning, match="the first stage of .* ended after 3 steps and stays as it is"):
        after = load_checkpoint(pretrain(replace(config, max_steps=5))).state_dict()
    assert {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])} == {"pointnet"}
    assert [row["step"] for row in losses_of(config) if row["split"] == "train"] == [str(step) for step in range(1, 9)]


def test_a_killed_second_stage_says_that_the_first_one_stays(frame_store, tmp_path):
    config = config_for(frame_store, tmp_path / "model.safetensors", schedule="staged", max_steps=3, save_every_s=0)
    training = Pretraining(config)
    train_step = training._train_step

    def killed(stage, *arguments):
        if training.progress.stage and training.progress.step == 2:
            raise KeyboardInterrupt
        return train_step(stage, *arguments)

    training._train_step = killed
    with pytest.raises(KeyboardInterrupt):
        training.run()
    with pytest.warns(UserWarning, match="the first stage of .* ended after 3 steps and stays as it is"):
        pretrain(replace(config, max_steps=4))
    assert len([row for row in losses_of(config) if row["split"] == "train"]) == 3 + 4


def test_a_run_that_an_earlier_release_finished_stays_and_says_so(frame_store, tmp_path):
    config = config_for(frame_store, tmp_path / "model.safetensors", max_steps=3)
    training = Pretraining(config)
    training.run()
    training.progress.next_stage()  # as it was left then
    training._save(torch.optim.Adam(training.model.parameters()))
    before = config.out.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pretrain(config)
    with pytest.warns(UserWarning, match="was finished by an earlier release, after 3 steps, and cannot go on"):
        pretrain(replace(config, max_steps=5))
    assert config.out.read_bytes() == before


def test_a_run_out_of_patience_does_not_go_on(frame_store, tmp_path):
    config = config_for(frame_store, tmp_path / "model.safetensors", patience_epochs=1, max_steps=20)
    training = Pretraining(config)
    training._validate = lambda stage, log: setattr(training.progress, "epochs_without_improvement", 1)
    training.run()
    before = config.out.stat().st_mtime_ns
    pretrain(replace(config, max_steps=30))
    assert config.out.stat().st_mtime_ns == before


def test_a_second_run_in_the_same_folder_is_refused_and_harms_nothing(frame_store, tmp_path):
    config = config_for(frame_store, tmp_path / "model.safetensors")
    with locked_folder(tmp_path / "model.pretraining"):
        with pytest.raises(InUseError, match="another run is writing .*model.pretraining"):
            pretrain(config)
        assert not config.out.exists()
    pretrain(config)
    assert load_checkpoint(config.out).config == config.model


def test_a_checkpoint_knows_its_game(frame_store, tmp_path):
    config = config_for(frame_store, tmp_path / "model.safetensors", max_steps=1)
    assert checkpoint_metadata(pretrain(config)) == {"game": "MovingSquare"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_steps": 0}, "max_steps must be at least 1, not 0"),
        ({"batch_size": -4}, "batch_size must be at least 1, not -4"),
        ({"pointnet_steps": 0, "schedule": "staged"}, "pointnet_steps must be at least 1, not 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive, not nan"),
        ({"max_minutes": 0.0}, "max_minutes must be positive, not 0.0"),
        ({"save_every_s": -1.0}, "save_every_s must be at least 0, not -1.0"),
        ({"seed": -1}, "seed must be from 0 to 2147483647, not -1"),
        ({"pointnet_steps": 5}, "pointnet_steps is only read where the PointNet is trained alone"),
        ({"collect_frames": 100}, "collect_frames is only read where frames are collected"),
        ({"max_pair_distance": 5}, "max_pair_distance is only read where the transporter is trained"),
        ({"frozen_from": "x", "learning_rate": 1e-3}, "learning_rate is only read where VAE and LSPN are trained"),
        ({"schedule": "staged", "first_stage_share": 0.5}, "first_stage_share is only read where max_minutes"),
        ({"method": "transporter"}, "layers is permakey's: the transporter has no use for it"),
    ],
)
def test_impossible_and_useless_settings_are_named(frame_store, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        config_for(frame_store, tmp_path / "model.safetensors", **settings)


def test_a_checkpoint_that_cannot_be_written_is_named_before_the_first_step(frame_store, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    training = Pretraining(config_for(frame_store, tmp_path / "file" / "model.safetensors"))
    training._train_step = lambda *arguments: pytest.fail("a step was made")
    with pytest.raises(WriteError, match="could not write .*file/model.safetensors: Not a directory"):
        training.run()


def test_a_run_with_other_settings_is_not_overwritten(frame_store, tmp_path):
    config = config_for(frame_store, tmp_path / "model.safetensors")
    pretrain(config)
    with pytest.raises(StateError, match="belongs to a run with seed 0, not 1"):
        pretrain(replace(config, seed=1))


def test_a_broken_state_is_named(frame_store, tmp_path):
    config = config_for(frame_store, tmp_path / "model.safetensors")
    pretrain(config)
    state = config.out.with_suffix(".pretraining") / "state.safetensors"
    whole = state.read_bytes()
    state.write_bytes(whole[:100])
    with pytest.raises(StateError, match="is broken"):
        pretrain(config)
    state.write_bytes(whole.replace(b"best_loss", b"best_lost"))
    with pytest.raises(StateError, match=r"is broken \(KeyError\('best_loss'\)\)"):
        pretrain(config)


def test_patience_stops_a_run(frame_store, tmp_path):
    config = config_for(frame_store, tmp_path / "model.safetensors", max_steps=None, epochs=9, patience_epochs=2)
    training = Pretraining(config)
    fixed = PermaKeyLosses(*(torch.ones((), requires_grad=True) for _ in PermaKeyLosses._fields))
    training.model.losses = lambda images, noise, with_pointnet, lspn_stride: fixed
    training.run()
    validations = [row for row in losses_of(config) if row["split"] == "valid"]
    assert len(validations) == 3  # one that improved on nothing before, then two that did not


def test_a_loss_that_is_not_finite_stops_with_the_last_good_state_intact(frame_store, tmp_path):
    config = config_for(frame_store, tmp_path / "model.safetensors", save_every_s=0)
    training = Pretraining(config)
    good_losses = training.model.losses

    def losses_broken_in_the_third_step(*args, **kwargs):
        losses = good_losses(*args, **kwargs)
        return losses._replace(lspn=losses.lspn * float("nan")) if training.progress.step == 2 else losses

    training.model.losses = losses_broken_in_the_third_step
    with pytest.raises(TrainingDivergedError, match="not finite at step 2"):
        training.run()
    assert not config.out.exists()
    saved = load_state(training.state_path, training.settings)
    assert saved.progress.step == 2
    assert all(torch.isfinite(tensor).all() for tensor in saved.model.values())


def test_learning_rate_falls_in_stairs(frame_store, tmp_path):
    config = config_for(frame_store, tmp_path / "model.safetensors", max_steps=6, decay_steps=2, decay_rate=0.5)
    pretrain(config)
    rates = [float(row["learning_rate"]) for row in losses_of(config) if row["split"] == "train"]
    assert rates == pytest.approx([2e-4, 2e-4, 1e-4, 1e-4, 5e-5, 5e-5])


def test_the_transporter_trains_on_pairs(frame_store, tmp_path):
    settings = {"method": "transporter", "model": PermaKeyConfig(num_keypoints=3), "max_steps": 10}
    config = config_for(frame_store, tmp_path / "model.safetensors", **settings)
    pretrain(config)
    model = load_checkpoint(config.out)
    assert isinstance(model, Transporter)
    assert model.config.num_keypoints == 3
    rows = losses_of(config)
    assert list(rows[0]) == ["step", "split", "reconstruction", "learning_rate"]
    assert float(rows[0]["learning_rate"]) == 5e-4


def test_bars_are_drawn_at_load_time(frame_store, tmp_path):
    config = config_for(frame_store, tmp_path / "model.safetensors", distractor="both")
    training = Pretraining(config)
    indices = np.array([3, 5])
    drawn, clean = training.reader.frames("train", indices), frame_store.splits["train"][indices]
    places = places_by_index("both", indices, (config.seed, 0))
    assert (drawn == draw_bars(clean, places)).all()
    images = training.reader.images("train", indices)
    assert torch.equal(images, torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 255)
    pretrain(config)
    frame_store.description["distractor"] = "both"
    with pytest.raises(FrameStoreError, match="draw bars on clean frames"):
        FrameReader(frame_store, torch.device("cpu"), "both")


def test_lspn_learns_from_every_other_image_as_from_these_alone(frame_store):
    torch.manual_seed(0)
    model = PermaKey(PermaKeyConfig(num_keypoints=3, layers=(1,))).train()
    images = torch.from_numpy(frame_store.splits["train"][:6]).permute(0, 3, 1, 2).float() / 255
    losses = model.losses(images, lspn_stride=2)
    features = model.vae(images).feature_maps[1].detach()[::2]
    patches = to_patches(features, 2)
    expected = lspn_loss(patch_errors(model.lspns[0](patches), patches))
    torch.testing.assert_close(losses.lspn, expected)
    losses.pointnet.backward()
    assert all(parameter.grad is None for parameter in model.lspns.parameters())
    assert all(parameter.grad is not None for parameter in model.pointnet.parameters())


def test_frames_that_do_not_fit_are_named(frame_store, tmp_path):
    out = tmp_path / "model.safetensors"
    with pytest.raises(FrameStoreError, match="holds frames of 3 channels, the model takes 1"):
        Pretraining(config_for(frame_store, out, model=PermaKeyConfig(image_channels=1)))
    with pytest.raises(FrameStoreError, match="fewer than a batch of 64"):
        Pretraining(config_for(frame_store, out, batch_size=64))
    with pytest.raises(ValueError, match=r"out must name a \.safetensors file"):
        config_for(frame_store, tmp_path / "model.pt")
