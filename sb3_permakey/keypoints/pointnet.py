"""The PointNet: error maps through a bottleneck of K Gaussian windows (section 2, equation 3)."""

from __future__ import annotations

from torch import Tensor, nn

from sb3_permakey.keypoints.layers import ENCODER, Softmax, Trunk, gaussian_windows, resize_maps, soft_argmax


class PointNet(nn.Module):
    """Keypoint centres of stacked maps: (B, M, 84, 84) -> (B, K, 2), (y, x) in [-1, 1].

    :param in_channels: M, number of maps
    :param num_keypoints: K
    :param softmax: of the soft argmax
    """

    def __init__(self, in_channels: int, num_keypoints: int, softmax: Softmax = "axes") -> None:
        super().__init__()
        self.softmax = softmax
        self.trunk = Trunk(ENCODER, in_channels)
        self.to_keypoints = nn.Conv2d(ENCODER.filters[-1], num_keypoints, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Keypoint centres of the maps."""
        return soft_argmax(self.to_keypoints(self.trunk(maps)[-1]), self.softmax)


def pointnet_loss(centers: Tensor, error_maps: Tensor, window_std: float) -> Tensor:
    """Equation 3: the K windows summed, resized to the image, against each error map; mean squared error.

    The windows are drawn on the PointNet's own 21x21 map, as the bottleneck that they are.

    :param centers: (B, K, 2)
    :param error_maps: (B, M, 84, 84) in [0, 1]
    :param window_std: width of the windows
    :return: scalar
    """
    windows = gaussian_windows(centers, ENCODER.map_sizes()[-1], window_std).sum(dim=1, keepdim=True)
    return (resize_maps(windows, error_maps.shape[-1]) - error_maps).square().mean()
