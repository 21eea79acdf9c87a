import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MovingSquare, square_frames

from sb3_permakey import PermaKeyObservation, RecurrentDQN
from sb3_permakey.keypoints import (
    MODELS,
    CheckpointError,
    KeypointDetector,
    PermaKeyConfig,
    load_checkpoint,
    model_fingerprint,
    save_checkpoint,
    save_for_detection,
)
from sb3_permakey.keypoints.layers import to_images
from sb3_permakey.pretraining import PretrainConfig, pretrain
from sb3_permakey.pretraining.config import METHODS
from sb3_permakey.pretraining.stages import stages_of


@pytest.fixture
def toy(monkeypatch):
    """A stranger's module, whose model is registered for one test."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "toys")
    yield importlib.import_module("colour_model")
    for known, name in ((MODELS, "colour"), (METHODS, "colour"), (sys.modules, "colour_model")):
        known.pop(name)


def pretrain_toy(frame_store, out, **settings):
    settings = {"max_steps": 12, "model": PermaKeyConfig(num_keypoints=3), **settings}
    return pretrain(PretrainConfig(frames=frame_store.path, out=out, method="colour", score=False, **settings))


def test_a_model_from_outside_is_trained_saved_and_read(toy, frame_store, tmp_path):
    torch.manual_seed(0)
    fresh = toy.ColourModel(toy.ColourConfig(num_keypoints=3))
    images = to_images(square_frames(4), torch.device("cpu"))
    model = load_checkpoint(pretrain_toy(frame_store, tmp_path / "model.safetensors"))
    assert type(model) is toy.ColourModel
    assert model.config == toy.ColourConfig(num_keypoints=3)
    before, after = (float(one.train().losses(images).reconstruction) for one in (fresh, model))
    assert after < before / 2

    model.eval()
    detector = KeypointDetector(tmp_path / "model.safetensors", streaming=True)
    found, expected = detector.detect(square_frames(4)), load_checkpoint(detector.source).keypoints(images)
    np.testing.assert_allclose(found.centers, expected.centers.detach(), atol=1e-6)
    np.testing.assert_allclose(found.features, expected.features.detach(), atol=1e-6)
    assert not detector.streaming
    with pytest.raises(ValueError, match="is a ColourModel, which has no error maps: PermaKey has"):
        KeypointDetector(model, readout="peaks")


def test_its_file_for_detection_has_no_more_than_that(toy, tmp_path):
    model = toy.ColourModel(toy.ColourConfig())
    paths = [save(model, tmp_path / f"{save.__name__}.safetensors") for save in (save_checkpoint, save_for_detection)]
    whole, part = (load_checkpoint(path) for path in paths)
    assert model_fingerprint(whole) == model_fingerprint(part) == model_fingerprint(model)
    with torch.no_grad():
        whole.decoder.bias += 1
    assert model_fingerprint(whole) == model_fingerprint(model)
    with torch.no_grad():
        whole.to_keypoints.bias += 1
    assert model_fingerprint(whole) != model_fingerprint(model)
    assert part.for_detection_only


def test_an_agent_learns_from_its_keypoints(toy):
    env = PermaKeyObservation(MovingSquare(), toy.ColourModel(toy.ColourConfig()))
    model = RecurrentDQN("PermaKeyPolicy", env, buffer_size=100, learning_starts=20, batch_size=4).learn(40)
    assert model._n_updates > 0


def test_what_it_has_no_use_for_is_refused_in_a_sentence(toy, frame_store, tmp_path):
    out = tmp_path / "model.safetensors"
    with pytest.raises(ValueError, match="latent_dim is permakey's: the colour has no use for it"):
        pretrain_toy(frame_store, out, model=PermaKeyConfig(latent_dim=3))
    with pytest.raises(ValueError, match="lspn_stride are permakey's: the colour has one stage"):
        pretrain_toy(frame_store, out, schedule="staged")
    model = toy.ColourModel(toy.ColourConfig())
    with pytest.raises(ValueError, match="holds a ColourModel; a ColourModel takes no modules over"):
        model.take_over(model)


def test_models_that_are_not_registered(frame_store, toy, tmp_path):
    path = save_checkpoint(toy.ColourModel(toy.ColourConfig()), tmp_path / "model.safetensors")
    method, model = METHODS.pop("colour"), MODELS.pop("colour")
    with pytest.raises(CheckpointError, match="of kind colour, this release reads permakey, distilled, transporter"):
        load_checkpoint(path)
    with pytest.raises(ValueError, match="method must be one of permakey, transporter, not 'colour'"):
        pretrain_toy(frame_store, tmp_path / "other.safetensors")
    METHODS["colour"], MODELS["colour"] = method, model
    with pytest.raises(TypeError, match="no stages are registered for a Stranger: stages_of.register does"):
        stages_of(type("Stranger", (), {})(), None)
