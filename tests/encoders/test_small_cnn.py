import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.nn import functional as F

from sb3_permakey import SmallCNN


def images(*shape):
    return spaces.Box(0, 255, shape, np.uint8)


def test_two_convolutions_by_hand():
    torch.manual_seed(0)
    network = SmallCNN(images(4, 84, 84))
    assert network.features_dim == 64 * 3 * 3
    seen = torch.rand(2, 4, 84, 84)
    first, second = (layer for layer in network.layers if hasattr(layer, "weight"))
    patches = F.unfold(seen, 5, stride=5).transpose(1, 2) @ first.weight.flatten(1).T + first.bias
    hidden = patches.relu().transpose(1, 2).unflatten(2, (16, 16))
    patches = F.unfold(hidden, 5, stride=5).transpose(1, 2) @ second.weight.flatten(1).T + second.bias
    torch.testing.assert_close(network(seen), patches.relu().transpose(1, 2).flatten(1))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Box(-1, 1, (4,), np.float32), "^SmallCNN reads images, not Box"),
        (images(1, 24, 84), "^SmallCNN reads images of at least 25 pixels each way, not 24x84$"),
    ],
)
def test_what_it_does_not_read(space, message):
    with pytest.raises(ValueError, match=message):
        SmallCNN(space)
