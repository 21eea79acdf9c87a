import numpy as np
import pytest
import torch
from conftest import square_frames

from sb3_permakey.keypoints.folded import FoldedLSPN, FoldedPermaKey, to_images
from sb3_permakey.keypoints.layers import ENCODER, Trunk
from sb3_permakey.keypoints.lspn import LSPN, error_map, patch_errors, to_patches
from sb3_permakey.keypoints.peaks import error_map_peaks, local_contrast
from sb3_permakey.keypoints.permakey import PermaKey, PermaKeyConfig
from sb3_permakey.keypoints.readouts import PeaksReadout, ReadoutConfig
from sb3_permakey.keypoints.transporter import FoldedTransporter, Transporter, TransporterConfig
from sb3_permakey.keypoints.trunk import fold_blocks


def with_random_norms(module: torch.nn.Module) -> torch.nn.Module:
    """The module with BatchNorms that scale and shift, as those of a trained one do, in evaluation mode."""
    generator = torch.Generator().manual_seed(1)
    for norm in module.modules():
        if isinstance(norm, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            for values, low in ((norm.weight, 0.5), (norm.bias, -0.5), (norm.running_mean, -0.5)):
                values.data.uniform_(low, low + 1, generator=generator)
            norm.running_var.uniform_(0.3, 1.5, generator=generator)
    return module.eval()


def random_frames(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(count, 84, 84, 3), dtype=np.uint8)


@torch.no_grad()
def test_folded_blocks_give_every_layers_map():
    torch.manual_seed(0)
    trunk, images = with_random_norms(Trunk(ENCODER, 2)), torch.rand(2, 2, 84, 84)
    for found, expected in zip(fold_blocks(trunk.blocks).maps(images), trunk(images), strict=True):
        assert expected.std() > 0.05
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("side", "patch_size"), [(12, 2), (13, 2), (12, 3)])
@torch.no_grad()
def test_relative_errors_are_those_of_the_trained_module(side, patch_size):
    torch.manual_seed(0)
    lspn = with_random_norms(LSPN(5, patch_size))
    features = torch.rand(3, 5, side, side)
    patches = to_patches(features, patch_size)
    expected = error_map(patch_errors(lspn(patches), patches), patches).flatten()
    folded = FoldedLSPN(lspn)
    torch.testing.assert_close(folded.relative_errors(features), expected, atol=1e-6, rtol=1e-4)
    some = np.array([len(expected) - 1, 0, 7, 40])
    torch.testing.assert_close(folded.relative_errors(features, some), expected[some], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"softmax": "plane", "map_power": 0.5}, {"layers": (2,), "patch_size": 3}])
@torch.no_grad()
def test_folded_permakey_equals_the_trained_one(settings):
    torch.manual_seed(0)
    model = with_random_norms(PermaKey(PermaKeyConfig(num_keypoints=5, **settings)))
    folded, frames = FoldedPermaKey(model, torch.float32, streaming=False), random_frames(2)
    images = to_images(frames, torch.device("cpu"))
    found, expected = folded.keypoints(frames), model.keypoints(images)
    torch.testing.assert_close(found.centers, expected.centers, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.features, expected.features, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(folded.error_maps(frames), model.error_maps(images), atol=1e-4, rtol=0)
    _, first_map, _ = model.features_and_first_map(images)
    for surround_px, centroid_px in ((None, 6.0), (18.0, 10.0)):
        cell_size = model.cell_sizes[0]
        map_of_peaks = first_map if surround_px is None else local_contrast(first_map, cell_size, surround_px)
        centers, heights = error_map_peaks(map_of_peaks, cell_size, 3, 7.0, centroid_px)
        wanted = ReadoutConfig("peaks", 3, 7.0, surround_px, centroid_px)
        peaks = PeaksReadout(wanted, model, "the model").read(folded, frames)
        torch.testing.assert_close(peaks.centers, centers, atol=1e-3, rtol=0)
        torch.testing.assert_close(peaks.confidence, heights, atol=1e-4, rtol=0)


@pytest.mark.parametrize("softmax", ["axes", "plane"])
@torch.no_grad()
def test_folded_transporter_equals_the_trained_one(softmax):
    torch.manual_seed(0)
    model = with_random_norms(Transporter(TransporterConfig(num_keypoints=3, softmax=softmax)))
    frames = square_frames(3)
    found = FoldedTransporter(model, torch.float32).keypoints(frames)
    expected = model.keypoints(to_images(frames, torch.device("cpu")))
    assert expected.features.std() > 0.05
    torch.testing.assert_close(found.centers, expected.centers, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.features, expected.features, atol=1e-4, rtol=1e-4)


def test_folding_leaves_the_model_alone(keypoint_model):
    before = {name: tensor.clone() for name, tensor in keypoint_model.state_dict().items()}
    with torch.no_grad():
        FoldedPermaKey(keypoint_model, torch.bfloat16, streaming=False).keypoints(square_frames(1))
    for name, tensor in keypoint_model.state_dict().items():
        assert tensor.dtype == before[name].dtype
        assert torch.equal(tensor, before[name])
