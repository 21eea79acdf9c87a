"""What a step of pretraining moves between host and device, counted on torch's device "meta" in place of a GPU."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from short_runs import config_for

from benchmarks.speed.operations import Operations
from sb3_permakey.frames import reader
from sb3_permakey.keypoints import PermaKeyConfig
from sb3_permakey.pretraining.trainer import Pretraining, pretrain

RUNS = {
    "joint": {},
    "an LSPN on every third image": {"lspn_stride": 3},
    "a PointNet alone": {"schedule": "staged"},
    "the Transporter": {"method": "transporter", "model": PermaKeyConfig(num_keypoints=3)},
    "bars": {"distractor": "both"},
}


@pytest.fixture
def roomy(monkeypatch):
    """Every device has room for all frames, a CPU too; and none has autocast, which "meta" lacks."""
    monkeypatch.setattr(reader, "free_bytes", lambda device: 10**12)
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **keywords: nullcontext())


@pytest.mark.filterwarnings("ignore:for .*copying from a non-meta parameter")
@pytest.mark.parametrize("name", RUNS)
def test_a_step_copies_once_and_the_host_waits_for_nothing(name, frame_store, tmp_path, roomy):
    config = config_for(frame_store, tmp_path / "model.safetensors", **RUNS[name], max_steps=1)
    if name == "a PointNet alone":
        pretrain(config)  # which stores the error maps
    with Operations():
        training = Pretraining(config_for(frame_store, config.out, **RUNS[name], device="meta"))
        training._load()
        training.progress.stage = training.num_stages - 1
        stage = training._make_stage()
        optimizer = training._make_optimizer(stage)
        training._train_step(stage, stage.compute, optimizer)
    with Operations() as operations:
        training._train_step(stage, stage.compute, optimizer)
    assert (operations.counts["to device"], operations.counts["to host"]) == (1, 0)
    assert operations.counts["numbers read"] == operations.counts["shapes read"] == 0


def test_frames_on_the_device_are_the_same_images(frame_store, roomy):
    there = reader.FrameReader(frame_store, torch.device("cpu"))
    assert set(there.on_device) == {"train", "valid", "test"}
    there_images = there.images("train", np.array([3, 0, 7]))
    here = reader.FrameReader(frame_store, torch.device("cpu"), "both")
    here.distractor = None
    images = here.images("train", np.array([3, 0, 7]))
    assert not here.on_device
    assert torch.equal(there_images, images)
    assert there_images.stride() == images.stride()
