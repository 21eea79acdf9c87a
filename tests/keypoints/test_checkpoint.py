import json
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file, save_file

from sb3_permakey.keypoints import (
    CheckpointError,
    KeypointModel,
    PermaKey,
    PermaKeyConfig,
    Transporter,
    TransporterConfig,
    checkpoint_metadata,
    load_checkpoint,
    model_fingerprint,
    require_trainable,
    save_checkpoint,
    save_for_detection,
)

FORMAT = "sb3-permakey keypoints"
MODELS = {
    "permakey": lambda: PermaKey(PermaKeyConfig(num_keypoints=25)),
    "permakey of deeper layers": lambda: PermaKey(PermaKeyConfig(num_keypoints=3, layers=(2,), patch_size=1)),
    "transporter": lambda: Transporter(TransporterConfig(num_keypoints=25)),
}


def seen_images(model: KeypointModel, images: torch.Tensor) -> KeypointModel:
    """The model with BatchNorm statistics of the images, in evaluation mode."""
    with torch.no_grad():
        model.train()
        model.losses(images) if isinstance(model, PermaKey) else model.losses(images, images.flip(0))
    return model.eval()


def test_round_trip(keypoint_model, checkpoint):
    loaded = load_checkpoint(checkpoint)
    assert loaded.config == keypoint_model.config
    assert not loaded.training
    for name, tensor in keypoint_model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


@pytest.mark.parametrize("kind", MODELS)
def test_a_fingerprint_tells_models_apart_and_is_the_same_in_a_file_for_detection_only(kind, tmp_path):
    model = MODELS[kind]()
    fingerprint = model_fingerprint(model)
    assert model_fingerprint(load_checkpoint(save_checkpoint(model, tmp_path / "whole.safetensors"))) == fingerprint
    slim = save_for_detection(model, tmp_path / "slim.safetensors")
    assert model_fingerprint(load_checkpoint(slim)) == model_fingerprint(load_checkpoint(slim)) == fingerprint
    assert model_fingerprint(MODELS[kind]()) != fingerprint


def test_config_travels(tmp_path):
    config = PermaKeyConfig(num_keypoints=3, layers=(1, 2), window_std=0.2, image_channels=1)
    assert load_checkpoint(save_checkpoint(PermaKey(config), tmp_path / "x.safetensors")).config == config


def test_transporter_travels(tmp_path):
    model = Transporter(TransporterConfig(num_keypoints=3, window_std=0.2, image_channels=1))
    loaded = load_checkpoint(save_checkpoint(model, tmp_path / "x.safetensors"))
    assert isinstance(loaded, Transporter)
    assert loaded.config == model.config
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_files_of_version_1_load(keypoint_model, tmp_path):
    metadata = {
        "format": FORMAT,
        "version": "1",
        "kind": "permakey",
        "config": json.dumps(asdict(keypoint_model.config)),
    }
    save_file({name: t.contiguous() for name, t in keypoint_model.state_dict().items()}, tmp_path / "old", metadata)
    loaded = load_checkpoint(tmp_path / "old")
    assert loaded.config == keypoint_model.config
    assert checkpoint_metadata(tmp_path / "old") == {}


@pytest.mark.parametrize("save", [save_checkpoint, save_for_detection])
def test_metadata_travels(keypoint_model, tmp_path, save):
    metadata = {"command": "sb3-permakey pretrain", "minutes": "25"}
    assert checkpoint_metadata(save(keypoint_model, tmp_path / "x", metadata=metadata)) == metadata


@pytest.mark.parametrize("kind", MODELS)
def test_detection_form_gives_the_same_keypoints(kind, tmp_path):
    torch.manual_seed(0)
    images = torch.rand(4, 3, 84, 84) ** 4
    model = seen_images(MODELS[kind](), images)
    path = save_for_detection(model, tmp_path / "small.safetensors")
    assert path.stat().st_size <= 4.5e6
    loaded = load_checkpoint(path)
    assert loaded.config == model.config
    assert not loaded.training
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    with torch.no_grad():
        expected, found = model.keypoints(images), loaded.keypoints(images)
        assert (found.centers - expected.centers).abs().max() * 41.5 < 0.1
        torch.testing.assert_close(found.features, expected.features, rtol=0.02, atol=0.01)
        if isinstance(model, PermaKey):
            torch.testing.assert_close(loaded.error_maps(images), model.error_maps(images), rtol=0, atol=0.02)


def test_detection_form_holds_no_training_only_tensors(tmp_path):
    permakey = load_file(save_for_detection(PermaKey(), tmp_path / "permakey"))
    assert {name.split(".")[0] for name in permakey} == {"vae", "lspns", "pointnet"}
    assert {".".join(name.split(".")[:4]) for name in permakey if name.startswith("vae")} == {
        "vae.encoder.blocks.0",
        "vae.encoder.blocks.1",
    }
    transporter = load_file(save_for_detection(Transporter(), tmp_path / "transporter"))
    assert {name.split(".")[0] for name in transporter} == {"features", "pointnet", "to_keypoints"}


def test_model_for_detection_only_is_not_trained_further(keypoint_model, tmp_path):
    require_trainable(keypoint_model)
    loaded = load_checkpoint(save_for_detection(keypoint_model, tmp_path / "x"))
    with pytest.raises(CheckpointError, match="for detection only"):
        require_trainable(loaded)
    with pytest.raises(CheckpointError, match="for detection only"):
        save_checkpoint(loaded, tmp_path / "y")
    again = save_for_detection(loaded, tmp_path / "z")
    assert all(torch.equal(load_file(again)[name], t) for name, t in load_file(tmp_path / "x").items())


@pytest.mark.parametrize("for_detection", [True, False])
@pytest.mark.parametrize("change", ["less", "more"])
def test_missing_or_unknown_tensors_are_refused(tmp_path, for_detection, change):
    path = (save_for_detection if for_detection else save_checkpoint)(Transporter(), tmp_path / "x")
    tensors, metadata = load_file(path), {"for_detection_only": "true"} if for_detection else {}
    if change == "less":
        del tensors["pointnet.blocks.0.conv.weight"]
    else:
        tensors["colour"] = torch.zeros(1)
    config = json.dumps(asdict(TransporterConfig()))
    save_file(tensors, path, {"format": FORMAT, "version": "2", "kind": "transporter", "config": config} | metadata)
    with pytest.raises(CheckpointError, match="does not hold the tensors"):
        load_checkpoint(path)


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
        (
            {"version": "1", "kind": "other", "config": "{}"},
            "holds a model of kind other, this release reads permakey, distilled, transporter",
        ),
        ({"version": "1", "kind": "permakey", "config": '{"colour": 1}'}, "does not hold the tensors"),
        ({"version": "1", "kind": "permakey", "config": "{}"}, "does not hold the tensors"),
    ],
)
def test_of_another_version_or_config(tmp_path, metadata, message):
    path = tmp_path / "odd.safetensors"
    save_file({"weight": torch.zeros(3)}, path, {"format": FORMAT, **metadata})
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
