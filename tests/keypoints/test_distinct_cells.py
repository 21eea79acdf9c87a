import itertools

import numpy as np
import pytest
import torch
from conftest import square_frames
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_permakey.keypoints.distinct_cells import cells_seen, distinct_features, first_of_each
from sb3_permakey.keypoints.layers import ENCODER, TrunkShape, same_padding
from sb3_permakey.keypoints.streaming_trunk import CellLayer
from sb3_permakey.keypoints.transporter import FEATURES
from sb3_permakey.keypoints.trunk import FoldedConvolutions

SHALLOW = TrunkShape(ENCODER.kernels[:2], ENCODER.filters[:2], ENCODER.strides[:2])


def convolutions(shape: TrunkShape) -> FoldedConvolutions:
    torch.manual_seed(0)
    sizes = itertools.pairwise((3, *shape.filters))
    return FoldedConvolutions(
        (torch.randn(after, before, k, k) / (before * k * k) ** 0.5, torch.randn(after) / 4, stride)
        for (before, after), k, stride in zip(sizes, shape.kernels, shape.strides, strict=True)
    )


def images_of(frames: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frames).float() / 255


@given(st.lists(st.integers(0, 30), max_size=200), st.integers(0, 62))
def test_one_of_each_hash(values, shift):
    # Shifted, so that different hashes fall into one bucket, and into many.
    hashes = (np.array(values, np.uint64) + np.uint64(1)) << np.uint64(min(shift, 59))
    places, numbers = first_of_each(hashes)
    assert len(np.unique(hashes[places])) == len(places) == len(np.unique(hashes))
    np.testing.assert_array_equal(hashes[places][numbers], hashes)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.sampled_from([(4, 1), (3, 2), (3, 1), (1, 1), (1, 2), (5, 3)]), st.integers(0, 2**32 - 1))
def test_cells_of_windows_written_out(input_size, kernel_and_stride, seed):
    kernel, stride = kernel_and_stride
    size = -(-input_size // stride)
    random = np.random.default_rng(seed)
    places = np.sort(random.choice(2 * size**2, size=random.integers(1, 2 * size**2 + 1), replace=False))
    layer = CellLayer(torch.empty(0), torch.empty(0), kernel, stride)
    found, numbers = cells_seen(places, size, layer, input_size)
    before, _ = same_padding(input_size, kernel, stride)
    expected = []
    for place in places:
        image, row, column = np.unravel_index(place, (2, size, size))
        for down, right in itertools.product(range(kernel), repeat=2):
            y, x = row * stride + down - before, column * stride + right - before
            inside = 0 <= y < input_size and 0 <= x < input_size
            expected.append((image * input_size + y) * input_size + x if inside else -1)
    np.testing.assert_array_equal(np.append(found, -1)[numbers].ravel(), expected)
    assert set(found) == set(expected) - {-1}


@pytest.mark.parametrize("shape", [SHALLOW, ENCODER, FEATURES])
@torch.no_grad()
def test_features_are_those_of_whole_maps(shape):
    trunk, frames = convolutions(shape), square_frames(12)
    # What reaches the border, and what is alike at a border and inside.
    frames[3, :5, -3:] = frames[4, 20:25, 30:33] = 200
    frames[5, -2:] = 10
    expected = trunk.maps(images_of(frames).permute(0, 3, 1, 2))[-1].permute(0, 2, 3, 1)
    size = expected.shape[1]
    for places in (np.arange(12 * size**2), np.flatnonzero(np.random.default_rng(0).random(12 * size**2) < 0.3)):
        found = distinct_features(trunk, images_of(frames), places, largest_share=0.5)
        assert len(found.features) < 0.2 * len(places)
        torch.testing.assert_close(
            found.features[torch.from_numpy(found.numbers).long()],
            expected.reshape(-1, expected.shape[-1])[torch.from_numpy(places)],
            atol=2e-6,
            rtol=1e-5,
        )


def test_frames_without_anything_alike_are_not_looked_into():
    frames = np.random.default_rng(0).integers(256, size=(2, 84, 84, 3), dtype=np.uint8)
    places = np.arange(2 * 42**2)
    assert distinct_features(convolutions(SHALLOW), images_of(frames), places, largest_share=0.9) is None
    assert distinct_features(convolutions(SHALLOW), images_of(frames), places, largest_share=1.0) is not None
