import numpy as np
import pytest
import torch
from conftest import NUM_KEYPOINTS, square_frames

from sb3_permakey.keypoints import CheckpointError, KeypointDetector, PermaKey, PermaKeyConfig
from sb3_permakey.keypoints.detector import to_images
from sb3_permakey.keypoints.trunk import FrozenTrunk, fold_trunk

PIXELS_PER_UNIT = 83 / 2


def test_keypoints_of_a_path_and_of_a_model_are_equal(keypoint_model, checkpoint):
    frames = square_frames(3)
    from_path = KeypointDetector(checkpoint, precision="float32").detect(frames)
    from_model = KeypointDetector(keypoint_model, precision="float32").detect(frames)
    assert from_path.centers.shape == (3, NUM_KEYPOINTS, 2)
    assert from_path.features.shape == (3, NUM_KEYPOINTS, 64)
    assert from_path.centers.dtype == from_path.features.dtype == np.float32
    np.testing.assert_array_equal(from_path.centers, from_model.centers)
    np.testing.assert_array_equal(from_path.features, from_model.features)


def test_equals_the_model_itself(keypoint_model):
    frames = square_frames(3)
    images = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        expected = keypoint_model.keypoints(images)
    found = KeypointDetector(keypoint_model, precision="float32").detect(frames)
    np.testing.assert_allclose(found.centers, expected.centers, atol=1e-5)
    np.testing.assert_allclose(found.features, expected.features, atol=1e-4)


def test_bfloat16_keeps_keypoints_within_a_quarter_pixel(keypoint_model):
    frames = square_frames(3)
    exact = KeypointDetector(keypoint_model, precision="float32").detect(frames)
    rough = KeypointDetector(keypoint_model, precision="bfloat16").detect(frames)
    assert np.abs(exact.centers - rough.centers).max() * PIXELS_PER_UNIT < 0.25
    assert rough.features.dtype == np.float32


def test_a_detector_does_not_touch_the_model_it_was_made_of(keypoint_model):
    weight = keypoint_model.vae.encoder.blocks[0].conv.weight
    KeypointDetector(keypoint_model, precision="bfloat16")
    assert weight.dtype == torch.float32
    assert weight.requires_grad


def test_error_maps_are_at_the_frames_size(keypoint_model):
    maps = KeypointDetector(keypoint_model, precision="float32").error_maps(square_frames(2))
    assert maps.shape == (2, 2, 84, 84)
    assert 0 <= maps.min() <= maps.max() <= 1


@pytest.mark.parametrize(
    "frames",
    [np.zeros((84, 84, 3), np.uint8), np.zeros((1, 96, 96, 3), np.uint8), np.zeros((1, 84, 84, 3), np.float32)],
)
def test_other_frames_are_refused_in_a_sentence(keypoint_model, frames):
    with pytest.raises(ValueError, match=r"frames must be uint8 \(B, 84, 84, C\), not"):
        KeypointDetector(keypoint_model).detect(frames)


def test_other_channels_are_refused_in_a_sentence():
    detector = KeypointDetector(PermaKey(PermaKeyConfig(image_channels=1)))
    with pytest.raises(CheckpointError, match=r"takes images of 1 channel\(s\), but the frames have 3"):
        detector.detect(square_frames(1))


def test_unknown_precision_is_refused(keypoint_model):
    with pytest.raises(ValueError, match="precision must be"):
        KeypointDetector(keypoint_model, precision="float8")


def test_folded_trunk_equals_the_encoder(keypoint_model):
    images = to_images(square_frames(2), torch.device("cpu"))
    with torch.no_grad():
        expected = keypoint_model.vae.encoder(images, depth=2)[-1]
    weights = fold_trunk(keypoint_model)
    found = FrozenTrunk(weights)(images)
    assert (weights.channels, weights.map_size, weights.image_channels) == (64, 42, 3)
    assert expected.abs().max() > 0.1
    assert torch.allclose(found, expected, atol=1e-5)
