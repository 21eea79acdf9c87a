from dataclasses import replace

import numpy as np
import pytest
import torch
from short_runs import config_for, losses_of

from sb3_permakey.keypoints import (
    CheckpointError,
    PermaKey,
    PermaKeyConfig,
    load_checkpoint,
    save_for_detection,
)
from sb3_permakey.pretraining.trainer import Pretraining, pretrain

FIVE_KEYPOINTS = PermaKeyConfig(num_keypoints=5, layers=(1,))


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
