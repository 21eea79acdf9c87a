import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from sb3_permakey.keypoints import CheckpointError, PermaKey, PermaKeyConfig, load_checkpoint, save_checkpoint


def test_round_trip(keypoint_model, checkpoint):
    loaded = load_checkpoint(checkpoint)
    assert loaded.config == keypoint_model.config
    assert not loaded.training
    for name, tensor in keypoint_model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_config_travels(tmp_path):
    config = PermaKeyConfig(num_keypoints=3, layers=(1, 2), window_std=0.2, image_channels=1)
    assert load_checkpoint(save_checkpoint(PermaKey(config), tmp_path / "x.safetensors")).config == config


def test_missing(tmp_path):
    with pytest.raises(CheckpointError, match="no keypoint checkpoint at"):
        load_checkpoint(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("kept", [0, 4, 1000, -10])
def test_truncated(checkpoint, tmp_path, kept):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(checkpoint.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="truncated or not a safetensors file"):
        load_checkpoint(broken)


def test_of_another_format(tmp_path):
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="not a keypoint checkpoint"):
        load_checkpoint(tmp_path / "other.safetensors")
    (tmp_path / "model.pt").write_bytes(b"PK\x03\x04 not what it seems")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_checkpoint(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"version": "99", "config": "{}"}, "version 99"),
        ({"version": "1", "kind": "other", "config": "{}"}, "holds a model of kind other, this release reads permakey"),
        ({"version": "1", "kind": "permakey", "config": '{"colour": 1}'}, "does not hold the tensors"),
        ({"version": "1", "kind": "permakey", "config": "{}"}, "does not hold the tensors"),
    ],
)
def test_of_another_version_or_config(tmp_path, metadata, message):
    path = tmp_path / "odd.safetensors"
    save_file({"weight": torch.zeros(3)}, path, {"format": "sb3-permakey keypoints", **metadata})
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


def test_full_disk_leaves_the_old_checkpoint(checkpoint, tmp_path):
    path = tmp_path / "kept.safetensors"
    path.write_bytes(checkpoint.read_bytes())
    script = (
        "import resource, sys\n"
        "from sb3_permakey.keypoints import load_checkpoint, save_checkpoint\n"
        "model = load_checkpoint(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "try:\n    save_checkpoint(model, sys.argv[1])\n"
        "except OSError:\n    sys.exit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == 7
    assert path.read_bytes() == checkpoint.read_bytes()
    assert list(tmp_path.iterdir()) == [path]
