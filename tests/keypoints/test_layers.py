import numpy as np
import pytest
import torch

from sb3_permakey.keypoints.layers import (
    ENCODER,
    Trunk,
    gaussian_windows,
    means_around,
    resize_maps,
    same_conv2d,
    same_padding,
    soft_argmax,
    window_means,
)


def test_encoder_maps_are_84_42_21_21():
    maps = Trunk(ENCODER, in_channels=3)(torch.zeros(2, 3, 84, 84))
    assert [tuple(features.shape) for features in maps] == [
        (2, 32, 84, 84),
        (2, 64, 42, 42),
        (2, 64, 21, 21),
        (2, 128, 21, 21),
    ]
    assert ENCODER.map_sizes() == (84, 42, 21, 21)


def test_trunk_stops_at_the_depth_asked_for():
    assert len(Trunk(ENCODER, in_channels=3)(torch.zeros(2, 3, 84, 84), depth=2)) == 2


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [
        (84, 4, 1, (1, 2)),
        (84, 3, 2, (0, 1)),
        (42, 3, 2, (0, 1)),
        (21, 3, 1, (1, 1)),
        (5, 3, 2, (1, 1)),
        (4, 1, 2, (0, 0)),
    ],
)
def test_same_padding_is_tensorflows(size, kernel, stride, padding):
    assert same_padding(size, kernel, stride) == padding


def test_same_convolution_against_sums_written_out():
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    result = same_conv2d(image, torch.ones(1, 1, 3, 3), stride=2)
    # An odd padding adds the cell after: windows start at rows and columns 0 and 2.
    expected = [
        [0 + 1 + 2 + 4 + 5 + 6 + 8 + 9 + 10, 2 + 3 + 6 + 7 + 10 + 11],
        [8 + 9 + 10 + 12 + 13 + 14, 10 + 11 + 14 + 15],
    ]
    assert torch.equal(result[0, 0], torch.tensor(expected, dtype=torch.float))


def test_soft_argmax_finds_known_places():
    maps = torch.zeros(1, 3, 21, 21)
    maps[0, 0, 0, 20] = 1e4
    maps[0, 1, 10, 5] = 1e4
    centers = soft_argmax(maps)[0]
    assert torch.allclose(centers[0], torch.tensor([-1.0, 1.0]))
    assert torch.allclose(centers[1], torch.tensor([0.0, -0.5]), atol=1e-6)
    assert torch.allclose(centers[2], torch.tensor([0.0, 0.0]), atol=1e-6)


def test_soft_argmax_over_the_plane_weighs_every_cell():
    maps = torch.tensor([[[[0.0, 2.0], [1.0, -1.0], [0.5, 0.0]]]])
    weights = maps.exp() / maps.exp().sum()
    rows, columns = torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([-1.0, 1.0])
    expected_y = sum(weights[0, 0, y, x] * rows[y] for y in range(3) for x in range(2))
    expected_x = sum(weights[0, 0, y, x] * columns[x] for y in range(3) for x in range(2))
    torch.testing.assert_close(soft_argmax(maps, "plane")[0, 0], torch.stack([expected_y, expected_x]))


def test_soft_argmax_is_softmax_of_the_averaged_axis():
    maps = torch.tensor([[[[0.0, 2.0], [4.0, 6.0]]]])
    # Averages: rows (1, 5), columns (2, 4); the coordinate is P(last) - P(first) = tanh(difference / 2).
    expected = torch.tanh(torch.tensor([(5.0 - 1.0) / 2, (4.0 - 2.0) / 2]))
    assert torch.allclose(soft_argmax(maps)[0, 0], expected)


def test_windows_fall_to_1_over_e_at_the_std():
    windows = gaussian_windows(torch.tensor([[[0.0, -1.0], [0.5, 0.5]]]), size=21, std=0.1)
    assert windows.shape == (1, 2, 21, 21)
    assert windows[0, 0, 10, 0] == pytest.approx(1.0)
    assert windows[0, 0, 11, 0] == pytest.approx(np.exp(-1), rel=1e-4)
    assert windows[0, 0, 11, 1] == pytest.approx(np.exp(-2), rel=1e-4)
    assert windows[0, 1].argmax() == 15 * 21 + 15


def test_window_means_against_a_loop():
    torch.manual_seed(0)
    features, windows = torch.rand(2, 5, 6, 6), torch.rand(2, 3, 6, 6)
    means = window_means(features, windows)
    for batch in range(2):
        for keypoint in range(3):
            weights = windows[batch, keypoint]
            expected = [(features[batch, channel] * weights).sum() / weights.sum() for channel in range(5)]
            assert torch.allclose(means[batch, keypoint], torch.stack(expected), atol=1e-6)


@pytest.mark.parametrize(("size", "std"), [(42, 0.1), (42, 0.03), (21, 0.1)])  # of the last, windows as wide as the map
def test_means_around_keypoints_are_those_of_whole_windows(size, std):
    torch.manual_seed(0)
    features = torch.rand(3, 5, size, size).contiguous(memory_format=torch.channels_last)
    centers = torch.cat([torch.rand(3, 6, 2) * 2 - 1, torch.tensor([[-1.0, 1.0], [1.0, 0.0]]).expand(3, 2, 2)], dim=1)
    expected = window_means(features, gaussian_windows(centers, size, std))
    assert torch.allclose(means_around(features, centers, std), expected, atol=2e-6)
    assert torch.allclose(means_around(features.contiguous(), centers, std), expected, atol=2e-6)


def test_resize_keeps_the_outermost_cells_in_place():
    row = torch.linspace(-1, 1, 21).expand(1, 1, 21, 21)
    assert torch.allclose(resize_maps(row)[0, 0, 0], torch.linspace(-1, 1, 84), atol=1e-5)
