import pytest
import torch

from benchmarks.feature_variants import VariantPretraining
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
