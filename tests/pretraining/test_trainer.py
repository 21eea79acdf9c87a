import csv
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from sb3_permakey.distractors import draw_bars, places_by_index
from sb3_permakey.keypoints import (
    CheckpointError,
    PermaKey,
    PermaKeyConfig,
    PermaKeyLosses,
    Transporter,
    load_checkpoint,
    save_for_detection,
)
from sb3_permakey.keypoints.lspn import lspn_loss, patch_errors, to_patches
from sb3_permakey.pretraining.config import PretrainConfig
from sb3_permakey.pretraining.frames import FrameStoreError
from sb3_permakey.pretraining.reader import FrameReader
from sb3_permakey.pretraining.state import StateError, load_state
from sb3_permakey.pretraining.trainer import Pretraining, TrainingDivergedError, pretrain

SHORT = {"batch_size": 4, "max_steps": 4, "log_every_steps": 1, "precision": "float32", "picture_every_steps": 100}
FIVE_KEYPOINTS = PermaKeyConfig(num_keypoints=5, layers=(1,))


def config_for(frame_store, out, **settings) -> PretrainConfig:
    model = PermaKeyConfig(num_keypoints=3, layers=(1,))
    return PretrainConfig(**{"frames": frame_store.path, "out": out, "model": model, **SHORT, **settings})


def losses_of(config: PretrainConfig) -> list[dict[str, str]]:
    with (config.out.with_suffix(".pretraining") / "losses.csv").open() as file:
        return list(csv.DictReader(file))


def as_numbers(rows) -> np.ndarray:
    return np.array([[float(row[name]) for name in ("reconstruction", "kl", "lspn", "pointnet")] for row in rows])


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


def test_losses_fall(frame_store, tmp_path):
    config = config_for(frame_store, tmp_path / "model.safetensors", max_steps=30, learning_rate=1e-3)
    pretrain(config)
    numbers = as_numbers([row for row in losses_of(config) if row["split"] == "train"])
    assert (numbers[-5:].mean(axis=0) < numbers[:5].mean(axis=0))[[0, 2]].all()


def test_staged_leaves_vae_and_lspn_frozen_in_its_second_stage(frame_store, tmp_path):
    short = config_for(frame_store, tmp_path / "a.safetensors", schedule="staged", max_steps=3)
    pretrain(short)
    only_first = Pretraining(replace(short, out=tmp_path / "b.safetensors"))
    only_first.num_stages = 1
    both, first = load_checkpoint(short.out).state_dict(), load_checkpoint(only_first.run()).state_dict()
    differing = {name.split(".")[0] for name in both if not torch.equal(both[name], first[name])}
    assert differing == {"pointnet"}


def test_stored_error_maps_are_those_of_the_frozen_modules(frame_store, tmp_path):
    config = config_for(frame_store, tmp_path / "model.safetensors", schedule="staged", max_steps=3)
    model = load_checkpoint(pretrain(config)).eval()
    for split in ("train", "valid"):
        stored = np.load(tmp_path / "model.pretraining" / f"error_maps_{split}_1.npy")
        images = torch.from_numpy(np.array(frame_store.splits[split])).permute(0, 3, 1, 2).float() / 255
        (expected,) = model.layer_error_maps(images)
        assert stored.std() > 0.01
        np.testing.assert_allclose(stored, expected.detach().numpy(), atol=2e-3)


@pytest.mark.parametrize("schedule", ["joint", "staged"])
def test_a_killed_run_has_the_same_loss_curve(frame_store, tmp_path, schedule):
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


def test_a_finished_run_is_not_done_again(frame_store, tmp_path):
    config = config_for(frame_store, tmp_path / "model.safetensors")
    pretrain(config)
    before = config.out.stat().st_mtime_ns
    pretrain(config)
    assert config.out.stat().st_mtime_ns == before
    config.out.unlink()
    pretrain(config)
    assert load_checkpoint(config.out).config == config.model


def test_a_run_with_other_settings_is_not_overwritten(frame_store, tmp_path):
    config = config_for(frame_store, tmp_path / "model.safetensors")
    pretrain(config)
    with pytest.raises(StateError, match="belongs to a run with seed 0, not 1"):
        pretrain(replace(config, seed=1))


def test_a_broken_state_is_named(frame_store, tmp_path):
    config = config_for(frame_store, tmp_path / "model.safetensors")
    pretrain(config)
    state = config.out.with_suffix(".pretraining") / "state.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(StateError, match="is broken"):
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
    config = config_for(frame_store, tmp_path / "model.safetensors", method="transporter", max_steps=10)
    pretrain(config)
    model = load_checkpoint(config.out)
    assert isinstance(model, Transporter)
    assert model.config.num_keypoints == 3
    rows = losses_of(config)
    assert list(rows[0]) == ["step", "split", "reconstruction", "learning_rate"]
    assert float(rows[0]["learning_rate"]) == 5e-4


def test_a_lone_pointnet_learns_on_another_checkpoints_error_maps(frame_store, tmp_path):
    first = config_for(frame_store, tmp_path / "first.safetensors", schedule="staged", max_steps=3)
    source = load_checkpoint(pretrain(first)).state_dict()
    other = replace(first, out=tmp_path / "other.safetensors", frozen_from=first.out, model=FIVE_KEYPOINTS)
    model = load_checkpoint(pretrain(other))
    assert model.config == FIVE_KEYPOINTS
    differing = {name.split(".")[0] for name, value in model.state_dict().items() if _differs(source[name], value)}
    assert differing == {"pointnet"}
    assert len([row for row in losses_of(other) if row["split"] == "train"]) == 3


def test_a_pointnet_for_a_checkpoint_for_detection_only(frame_store, tmp_path):
    whole = PermaKey(FIVE_KEYPOINTS)
    small = save_for_detection(whole, tmp_path / "small.safetensors")
    config = config_for(frame_store, tmp_path / "other.safetensors", frozen_from=small)
    model = load_checkpoint(pretrain(config))
    assert model.for_detection_only
    assert model.config == config.model
    assert config.out.stat().st_size < 1.2 * small.stat().st_size


def _differs(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape != other.shape or not torch.equal(one, other)


def test_frozen_modules_must_fit(frame_store, tmp_path):
    first = config_for(frame_store, tmp_path / "first.safetensors")
    pretrain(first)
    with pytest.raises(CheckpointError, match="do not fit"):
        Pretraining(
            config_for(
                frame_store, tmp_path / "other.safetensors", frozen_from=first.out, model=PermaKeyConfig(layers=(0,))
            )
        )


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
