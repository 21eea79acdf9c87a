import numpy as np
import pytest
import torch

from sb3_permakey.keypoints.pointnet import PointNet, pointnet_loss


def test_keypoints_lie_in_the_image():
    centers = PointNet(in_channels=2, num_keypoints=5)(torch.rand(3, 2, 84, 84))
    assert centers.shape == (3, 5, 2)
    assert centers.abs().max() <= 1


def test_loss_against_windows_written_out():
    torch.manual_seed(0)
    centers, maps = torch.tensor([[[0.0, 0.0], [0.5, -1.0]]]), torch.rand(1, 2, 84, 84)
    axis = np.linspace(-1, 1, 21)
    windows = sum(
        np.exp(-((axis[:, None] - y) ** 2 + (axis[None, :] - x) ** 2) / 0.1**2) for y, x in centers[0].numpy()
    )
    place = np.linspace(0, 20, 84)
    rows = np.stack([np.interp(place, np.arange(21), windows[:, column]) for column in range(21)], axis=1)
    resized = np.stack([np.interp(place, np.arange(21), row) for row in rows])
    expected = np.mean((resized[None] - maps[0].numpy()) ** 2)
    assert pointnet_loss(centers, maps, window_std=0.1) == pytest.approx(expected, rel=1e-4)


def test_loss_pulls_a_keypoint_towards_an_error_peak():
    maps = torch.zeros(1, 1, 84, 84)
    maps[0, 0, 40:44, 50:54] = 1
    center = torch.tensor([[[0.0, 0.1]]], requires_grad=True)
    pointnet_loss(center, maps, window_std=0.1).backward()
    assert center.grad[0, 0, 1] < 0  # the peak's x is 0.24
