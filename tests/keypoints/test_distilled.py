from dataclasses import asdict

import numpy as np
import pytest
import torch
from conftest import square_frames

from benchmarks.speed.operations import Operations
from sb3_permakey.keypoints import (
    Distilled,
    DistilledConfig,
    DistilledTargets,
    KeypointDetector,
    PermaKey,
    PermaKeyConfig,
    Transporter,
    load_checkpoint,
    save_checkpoint,
    save_for_detection,
)
from sb3_permakey.keypoints.distilled import known_patches, patch_roots, roots_layer, unexplained_share
from sb3_permakey.keypoints.layers import to_images
from sb3_permakey.keypoints.lspn import normalise_maps
from sb3_permakey.keypoints.model import features_at
from sb3_permakey.keypoints.peaks import error_map_peaks

SMALL = DistilledConfig(num_keypoints=3, feature_channels=5, filters=(4, 6), units=8)


@pytest.fixture
def student() -> Distilled:
    torch.manual_seed(0)
    model = Distilled(SMALL)
    with torch.no_grad():
        for _ in range(3):
            images = to_images(square_frames(4), torch.device("cpu"))
            units = model.train().trunk(images)[-1]
            model.to_features(units)
    return model.eval()


def test_detector_reads_what_the_model_in_training_says(student):
    frames = square_frames(5)
    found = KeypointDetector(student, readout="peaks", device="cpu").detect(frames)
    with torch.no_grad():
        expected = student.keypoints(to_images(frames, torch.device("cpu")))
    np.testing.assert_allclose(found.centers, expected.centers, atol=1e-4)
    np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-5)
    np.testing.assert_allclose(found.features, expected.features, atol=1e-5)
    assert found.features.shape == (5, 3, 5)
    assert found.features.min() >= 0


def test_features_at_keypoints_are_the_means_of_a_map_of_all_features(student):
    with torch.no_grad():
        units = student.trunk(to_images(square_frames(2), torch.device("cpu")))[-1]
        everywhere = student.to_features.norm(student.to_features.conv(units))
        centers = torch.rand(2, 3, 2) * 2 - 1
        expected = features_at(centers, everywhere, SMALL.window_std).clamp_min(0)
        network = student.frozen(torch.float32, streaming=False)
        found = network.features_at(centers, network.features(square_frames(2)))
    assert torch.allclose(found, expected, atol=1e-5)


def test_error_maps_are_squared_roots_scaled_to_1(student):
    frames = square_frames(3)
    detector = KeypointDetector(student, readout="peaks", device="cpu")
    first, second = detector.layer_error_maps(frames)
    assert (first.shape, second.shape) == ((3, 42, 42), (3, 21, 21))
    with torch.no_grad():
        units = student.trunk(to_images(frames, torch.device("cpu")))[-1]
        roots = torch.einsum("bchw,c->bhw", units, student.to_roots[0].weight[0, :, 0, 0]) + student.to_roots[0].bias
    expected = normalise_maps(torch.where(roots > 0, roots**2, 0))
    np.testing.assert_allclose(first, expected, atol=1e-5)
    assert detector.error_maps(frames).shape == (3, 2, 84, 84)
    centers, _ = error_map_peaks(expected, 2, 3, 5.0)
    np.testing.assert_allclose(detector.detect(frames).centers, centers, atol=1e-4)


def test_a_cell_sees_as_far_as_the_teachers_patch_and_no_farther(student):
    """Patch (i, j) of a first layer depends on pixels 2i - 3 to 2i + 5; a student's cell on 2i - 4 to 2i + 5."""
    images = torch.rand(1, 3, 84, 84, requires_grad=True)
    patch_roots(student.to_roots[0], student.trunk(images)[-1])[0, 20, 10].backward()
    rows, columns = images.grad.abs().sum(dim=(0, 1)).nonzero().T
    assert rows.min() >= 2 * 20 - 4
    assert rows.max() <= 2 * 20 + 5
    assert columns.min() >= 2 * 10 - 4
    assert columns.max() <= 2 * 10 + 5
    assert rows.max() - rows.min() >= 8


def test_losses_are_shares_of_variance():
    wanted, every = torch.tensor([[0.0, 2.0], [2.0, 6.0]]), torch.tensor([True, True])
    # Around the columns' means 1 and 4 the squares are 1, 1, 4, 4.
    assert unexplained_share(torch.tensor([[1.0, 4.0], [1.0, 4.0]]), wanted, every) == 1
    assert unexplained_share(wanted, wanted, every) == 0
    found = wanted + torch.tensor([1.0, 0.0])
    assert unexplained_share(found, wanted, every).item() == pytest.approx(0.5 / 2.5)
    # What does not count has no part in either.
    more = [torch.cat([part, torch.full((1, 2), 9.0 * sign)]) for part, sign in ((found, 1), (wanted, -1))]
    assert unexplained_share(*more, torch.tensor([True, True, False])).item() == pytest.approx(0.5 / 2.5)
    assert unexplained_share(*more, torch.tensor([False] * 3)) == 0


def test_a_student_that_says_what_its_teacher_does_has_no_loss(student):
    images = torch.rand(2, 3, 40, 40)
    with torch.no_grad():
        for layer in student.to_roots:
            layer.bias.fill_(3.0)  # so that no root is negative
        units = student.trunk(images)[-1]
        errors = [patch_roots(layer, units).square() for layer in student.to_roots]
        windows = torch.rand(2, 3, 20, 20)
        windows /= windows.sum(dim=(2, 3), keepdim=True)
        everywhere = student.to_features.norm(student.to_features.conv(units))
        features = torch.einsum("bchw,bphw->bpc", everywhere, windows)
        features[:, 1] = 7.0
        seen = torch.tensor([[True, False, True]] * 2)  # what is not seen does not count
        scales = [torch.tensor([4.0, 9.0]), torch.tensor([1.0, 2.0])]
        known = torch.ones(2, 20, 20)
        known[:, :, 15:] = 0
        errors[0][:, :, 15:] = errors[1][:, :, 7:] = 100.0  # where nothing is known, nothing counts
        same = student.losses(images, DistilledTargets(errors, scales, known, windows, seen, features))
        others = student.losses(
            images, DistilledTargets(errors, scales, torch.ones_like(known), windows, seen, features + 1)
        )
    np.testing.assert_allclose(same, 0, atol=1e-5)
    assert min(others) > 0.5


def test_no_loss_makes_a_gpus_host_wait(student):
    """Counted on torch's device "meta", which stands for one."""
    student.to("meta")
    with torch.device("meta"):
        errors, scales = [torch.rand(2, 20, 20), torch.rand(2, 10, 10)], [torch.rand(2)] * 2
        windows, seen = torch.rand(2, 3, 20, 20), torch.ones(2, 3, dtype=torch.bool)
        there = DistilledTargets(errors, scales, torch.ones(2, 20, 20), windows, seen, torch.rand(2, 3, 5))
        images = torch.rand(2, 3, 40, 40)
    with Operations() as operations:
        student.total_loss(student.losses(images, there)).backward()
    assert not {name for name in ("to device", "to host", "numbers read", "shapes read") if operations.counts[name]}


def test_errors_count_as_parts_of_their_images_highest(student):
    """An image whose errors are four times as high, and found as much higher, weighs as much as the other."""
    images = torch.rand(1, 3, 40, 40)
    with torch.no_grad():
        units = student.trunk(images)[-1]
        roots = [patch_roots(layer, units).clamp_min(0) for layer in student.to_roots]
    known, nothing = torch.ones(1, 20, 20), torch.zeros(1, 1, 20, 20)
    rest = (known, nothing, torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1, 5))
    wanted = [(root + torch.rand_like(root)).square() for root in roots]
    once, again = (
        student.losses(images, DistilledTargets(wanted, [torch.full((1,), scale)] * 2, *rest)).errors.item()
        for scale in (1.0, 4.0)
    )
    assert once == pytest.approx(again, rel=1e-5)


def test_patches_that_see_an_unknown_cell_are_unknown():
    known = torch.ones(1, 8, 8)
    known[0, 0, 0] = 0
    assert known_patches(known, roots_layer(2, 1)).sum() == 63
    # Patch i of the larger ones sees cells 2i - 1 to 2i + 2; outside the map nothing is unknown.
    expected = torch.ones(4, 4, dtype=torch.bool)
    expected[0, 0] = False
    assert (known_patches(known, roots_layer(2, 2))[0] == expected).all()
    known[0, 0, 0], known[0, 3, 3] = 1, 0
    expected = torch.ones(4, 4, dtype=torch.bool)
    expected[1:3, 1:3] = False
    assert (known_patches(known, roots_layer(2, 2))[0] == expected).all()


def test_a_student_has_its_teachers_shapes():
    teacher = PermaKey(PermaKeyConfig(num_keypoints=9, layers=(0, 1)))
    config = DistilledConfig.of_teacher(teacher, (8, 8), 16)
    assert (config.num_keypoints, config.layers, config.error_map_sizes) == (9, (0, 1), (42, 21))
    student = Distilled(config)
    assert student.feature_channels == teacher.feature_channels == 64
    assert student.error_map_layers == teacher.error_map_layers
    assert student.cell_sizes == teacher.cell_sizes
    assert [block.stride for block in student.feature_blocks()] == [2, 1, 1, 1]


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (Transporter(), "only a PermaKey"),
        (PermaKey(PermaKeyConfig(layers=(0, 2))), "cannot be distilled: error_map_siz"),
    ],
)
def test_not_every_model_can_be_distilled(teacher, message):
    with pytest.raises(ValueError, match=message):
        DistilledConfig.of_teacher(teacher, (8, 8), 8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"filters": (8,)}, "filters must be two"),
        ({"units": 0}, "units must be at least 1"),
        ({"layers": (0,)}, "one of error_map_sizes"),
        ({"error_map_sizes": (42, 11)}, "must be of"),
    ],
)
def test_settings_that_no_student_has(settings, message):
    with pytest.raises(ValueError, match=message):
        DistilledConfig(**{**asdict(SMALL), **settings})


def test_it_has_no_pointnet(student):
    with pytest.raises(ValueError, match="has no PointNet: readout='peaks' reads its keypoints"):
        KeypointDetector(student, readout="pointnet")


def test_auto_is_float32(student):
    assert KeypointDetector(student, readout="peaks", device="cpu").precision == torch.float32


@pytest.mark.parametrize("save", [save_checkpoint, save_for_detection])
def test_checkpoints_hold_it(student, tmp_path, save):
    again = load_checkpoint(save(student, tmp_path / "student.safetensors"))
    assert again.config == SMALL
    frames = square_frames(2)
    found, expected = (KeypointDetector(one, readout="peaks", device="cpu").detect(frames) for one in (again, student))
    np.testing.assert_allclose(found.centers, expected.centers, atol=0.02)
