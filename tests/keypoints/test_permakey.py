import pytest
import torch

from sb3_permakey.keypoints import PermaKey, PermaKeyConfig

MODULES = ("vae", "lspns", "pointnet")


def modules_with_gradient(model: PermaKey) -> set[str]:
    return {
        name
        for name in MODULES
        if any(p.grad is not None and p.grad.abs().sum() > 0 for p in getattr(model, name).parameters())
    }


@pytest.mark.parametrize(
    ("loss", "reached"), [("reconstruction", {"vae"}), ("kl", {"vae"}), ("lspn", {"lspns"}), ("pointnet", {"pointnet"})]
)
def test_each_loss_reaches_its_own_module_alone(loss, reached):
    torch.manual_seed(0)
    model = PermaKey(PermaKeyConfig(num_keypoints=3))
    getattr(model.losses(torch.rand(2, 3, 84, 84), torch.randn(2, 32)), loss).backward()
    assert modules_with_gradient(model) == reached


def test_losses_without_the_pointnet_leave_it_alone():
    model = PermaKey()
    losses = model.losses(torch.rand(2, 3, 84, 84), with_pointnet=False)
    model.total_loss(losses).backward()
    assert losses.pointnet == 0
    assert modules_with_gradient(model) == {"vae", "lspns"}


def test_kl_weight_scales_the_kl_alone():
    losses = PermaKey().losses(torch.rand(2, 3, 84, 84))
    light, heavy = PermaKey(PermaKeyConfig(kl_weight=0)), PermaKey(PermaKeyConfig(kl_weight=2))
    difference = heavy.total_loss(losses) - light.total_loss(losses)
    assert difference.item() == pytest.approx(2 * losses.kl.item(), rel=1e-3)


@pytest.mark.parametrize("training", [True, False])
def test_constant_images_give_finite_error_maps(training):
    model = PermaKey().train(training)
    for value in (0.0, 0.5, 1.0):
        maps = model.error_maps(torch.full((2, 3, 84, 84), value))
        assert maps.shape == (2, 2, 84, 84)
        assert torch.isfinite(maps).all()
        assert 0 <= maps.min() <= maps.max() <= 1


@pytest.mark.parametrize(
    ("layers", "patch_size", "channels", "image_channels"),
    [((0,), 2, 32, 3), ((0, 1), 2, 64, 1), ((2, 3), 2, 128, 3), ((0, 1, 2, 3), 2, 128, 3), ((0, 1), 3, 64, 3)],
)
def test_layers_patches_and_channels_are_free(layers, patch_size, channels, image_channels):
    config = PermaKeyConfig(num_keypoints=5, layers=layers, patch_size=patch_size, image_channels=image_channels)
    model, images = PermaKey(config).eval(), torch.rand(2, image_channels, 84, 84)
    assert model.error_maps(images).shape == (2, len(layers), 84, 84)
    keypoints = model.keypoints(images)
    assert keypoints.centers.shape == (2, 5, 2)
    assert keypoints.features.shape == (2, 5, channels)
    assert torch.isfinite(model.total_loss(model.losses(images)))


def test_defaults_are_the_papers():
    config = PermaKeyConfig()
    assert (config.layers, config.patch_size, config.window_std, config.latent_dim) == ((0, 1), 2, 0.1, 32)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_keypoints": 0}, "num_keypoints must be from 1 to 1764, not 0"),
        ({"num_keypoints": 100_000}, "num_keypoints must be from 1 to 1764, not 100000"),
        ({"latent_dim": 10**10}, "latent_dim must be from 1 to 4096, not 10000000000"),
        ({"patch_size": 15}, "patch_size must be from 1 to 14, not 15"),
        ({"layers": (4,)}, "layers must name encoder layers"),
        ({"layers": ()}, "layers must name encoder layers"),
        ({"layers": (1, 0)}, "layers must be ascending"),
        ({"window_std": 0.0}, "window_std must be positive"),
        ({"kl_weight": -1.0}, "kl_weight must be at least 0"),
    ],
)
def test_impossible_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        PermaKeyConfig(**settings)


def test_map_power_is_of_the_pointnets_maps_alone():
    torch.manual_seed(0)
    plain, dim = (
        PermaKey(PermaKeyConfig(num_keypoints=3)).eval(),
        PermaKey(PermaKeyConfig(num_keypoints=3, map_power=0.5)).eval(),
    )
    dim.load_state_dict(plain.state_dict())
    images = torch.rand(2, 3, 84, 84)
    maps = plain.layer_error_maps(images)
    for one, other in zip(maps, dim.layer_error_maps(images), strict=True):
        assert torch.equal(one, other)
    roots = [layer.sqrt() for layer in maps]
    assert torch.allclose(dim.pointnet_loss(maps), plain.pointnet_loss(roots))
    assert torch.allclose(dim.keypoints(images).centers, plain.pointnet(plain.stack_maps(roots)), atol=1e-6)
    with pytest.raises(ValueError, match="map_power must be positive"):
        PermaKeyConfig(map_power=0)
