import numpy as np
import pytest
import torch

from sb3_permakey.encoders.masked_convolution import masked_convolution, masked_maps
from sb3_permakey.keypoints.distinct_cells import DistinctFeatures
from sb3_permakey.keypoints.layers import same_conv2d


def masked(kernel: int, count: int = 5, size: int = 7, different: int = 6, channels: int = 4):
    """Maps of which a third of the masks are zero, as `masked_maps` has them and written out."""
    random = np.random.default_rng(0)
    masks = random.random((count, size, size), np.float32) * (random.random((count, size, size)) < 0.67)
    masks[2] = 0
    features = torch.from_numpy(random.standard_normal((different, channels), np.float32))
    numbers = random.integers(different, size=masks.shape, dtype=np.int32)
    places = np.flatnonzero(masks)
    maps = masked_maps(DistinctFeatures(features, numbers.ravel()[places]), places, masks, kernel)
    whole = features[torch.from_numpy(numbers).long()] * torch.from_numpy(masks).unsqueeze(-1)
    return maps, whole.permute(0, 3, 1, 2)


@pytest.mark.parametrize("kernel", [1, 3, 4])
@pytest.mark.parametrize("images", [slice(0, 5), slice(1, 4), slice(2, 3), slice(3, None)])
def test_outputs_and_gradient_are_those_of_the_whole_maps(kernel, images):
    maps, whole = masked(kernel)
    weight = torch.randn(6, 4, kernel, kernel, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found, expected = masked_convolution(maps[images], weight), same_conv2d(whole[images], weight)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)
    factors = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    [gradient] = torch.autograd.grad((found * factors).sum(), weight)
    [written_out] = torch.autograd.grad((expected * factors).sum(), weight)
    torch.testing.assert_close(gradient, written_out, atol=1e-5, rtol=1e-5)


def test_slices_of_slices():
    maps, whole = masked(3)
    weight = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(masked_convolution(maps[1:5][1:], weight), same_conv2d(whole[2:], weight))
