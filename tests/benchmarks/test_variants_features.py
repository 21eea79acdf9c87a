import shutil

import pytest
import torch

from benchmarks.variants.features import FeatureBenchmark, VariantPretraining, main
from sb3_permakey.keypoints import PermaKeyConfig
from sb3_permakey.pretraining.config import PretrainConfig


@pytest.mark.parametrize("encoder_learns", [True, False])
def test_a_random_encoder_stays_as_it_was(frame_store, tmp_path, encoder_learns):
    config = PretrainConfig(
        out=tmp_path / "model.safetensors",
        frames=frame_store.path,
        model=PermaKeyConfig(layers=(1,)),
        schedule="staged",
        batch_size=4,
        max_steps=2,
        precision="float32",
    )
    training = VariantPretraining(config, encoder_learns=encoder_learns)
    before = {name: value.clone() for name, value in training.model.named_parameters()}
    training.run()
    changed = {name.split(".")[0] for name, value in training.model.named_parameters() if not value.equal(before[name])}
    assert changed == ({"vae", "lspns"} if encoder_learns else {"lspns"})
    assert torch.isfinite(next(training.model.parameters())).all()


def test_variants_of_the_frames_learn_from_them(frame_store, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(VariantPretraining, "run", lambda training: read.append(training.config.frames))
    monkeypatch.setattr(
        "benchmarks.variants.features.score", lambda config: {"scores": {"keypoints": {"f1": {"value": 1.0}}}}
    )
    mixed = shutil.copytree(frame_store.path, tmp_path / "mixed")
    names = ("as benchmarked", "half of the frames an agent's")
    main(
        FeatureBenchmark(
            "Seaquest", frame_store.path, tmp_path / "out.json", tmp_path, mixed_frames=mixed, variants=names
        )
    )
    assert read == [frame_store.path, mixed]


def test_bad_variants_are_named(tmp_path):
    with pytest.raises(ValueError, match="unknown variant 'bigger'"):
        FeatureBenchmark("Seaquest", tmp_path, tmp_path, variants=("bigger",))
    with pytest.raises(ValueError, match="needs mixed_frames"):
        FeatureBenchmark("Seaquest", tmp_path, tmp_path, variants=("half of the frames an agent's",))
