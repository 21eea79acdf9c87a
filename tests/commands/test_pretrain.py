import pytest

from sb3_permakey.files import WriteError
from sb3_permakey.keypoints import CheckpointError
from sb3_permakey.pretraining import PretrainConfig, pretrain


def test_what_can_be_told_is_told_before_frames_are_collected(tmp_path, monkeypatch):
    monkeypatch.setattr("sb3_permakey.commands.pretrain.collect", lambda config: pytest.fail("frames were collected"))
    (tmp_path / "file").write_text("not a folder")
    out = tmp_path / "model.safetensors"
    with pytest.raises(ValueError, match="collect_frames must be at least a batch of 32"):
        PretrainConfig(out, game="Pong", collect_frames=31)
    with pytest.raises(WriteError, match="could not write .*file/model.safetensors: Not a directory"):
        pretrain(PretrainConfig(tmp_path / "file" / "model.safetensors", game="Pong"))
    with pytest.raises(ValueError, match="there is no device meta"):
        pretrain(PretrainConfig(out, game="Pong", device="meta"))
    with pytest.raises(CheckpointError, match="no keypoint checkpoint at"):
        pretrain(PretrainConfig(out, game="Pong", frozen_from=tmp_path / "nowhere.safetensors"))


def test_several_processes_do_not_collect(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="collect the frames first: several processes cannot share one collection"):
        pretrain(PretrainConfig(tmp_path / "model.safetensors", game="Pong"))
