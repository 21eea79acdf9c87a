import math

import pytest
import torch

from sb3_permakey.keypoints.vae import VAE, kl_divergence, reconstruction_loss


def test_reconstruction_loss_by_hand():
    images = torch.zeros(2, 1, 1, 2)
    reconstruction = torch.tensor([[[[1.0, 0.0]]], [[[0.5, 0.5]]]])
    # Squared errors 1 and 0.5; halved over the variance 0.1, mean over two images.
    assert reconstruction_loss(reconstruction, images) == pytest.approx((1 + 0.5) / 0.2 / 2)


def test_kl_divergence_by_hand():
    mean, scale = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 2.0]])
    assert kl_divergence(mean, scale) == pytest.approx(0.5 * 1 + 0.5 * (4 - 1 - 2 * math.log(2)))
    assert kl_divergence(torch.zeros(3, 4), torch.ones(3, 4)) == 0


def test_shapes_and_ranges():
    output = VAE(image_channels=3, latent_dim=5)(torch.rand(2, 3, 84, 84), torch.randn(2, 5))
    assert [features.shape[-1] for features in output.feature_maps] == [84, 42, 21, 21]
    assert output.latent_mean.shape == output.latent_scale.shape == (2, 5)
    assert (output.latent_scale > 0).all()
    assert output.reconstruction.shape == (2, 3, 84, 84)
    assert 0 <= output.reconstruction.min() <= output.reconstruction.max() <= 1


def test_noise_moves_the_latent_by_its_scale():
    vae = VAE().eval()
    image = torch.rand(1, 3, 84, 84)
    assert torch.equal(vae(image).reconstruction, vae(image, torch.zeros(1, 32)).reconstruction)
    assert not torch.equal(vae(image).reconstruction, vae(image, torch.ones(1, 32)).reconstruction)
