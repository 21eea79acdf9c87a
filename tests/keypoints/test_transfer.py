import numpy as np
import torch

from benchmarks.speed.operations import Operations
from sb3_permakey.keypoints.transfer import packed, split, to_device, to_host, unpacked

ARRAYS = {
    "flags": np.array([True, False, True]),
    "floats": np.arange(6, dtype=np.float32).reshape(2, 3),
    "numbers": np.array([[7]], dtype=np.int64),
    "none": np.zeros((0, 4), dtype=np.float32),
    "pixels": np.arange(5, dtype=np.uint8),
    "alone": np.float32(3.0).reshape(()),
}


def test_what_is_packed_is_unpacked():
    found = unpacked(packed(ARRAYS), ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name].numpy(), array, strict=True)


def test_what_is_cut_apart_is_what_was_joined():
    tensors = [torch.tensor([1, 2]), torch.tensor([True]), torch.arange(4.0).reshape(2, 2)]
    joined = torch.cat([tensor.reshape(-1).view(torch.uint8) for tensor in tensors])
    for array, tensor in zip(split(joined, tensors), tensors, strict=True):
        np.testing.assert_array_equal(array, tensor.numpy(), strict=True)


def test_each_way_is_one_copy():
    with Operations() as operations:
        there = to_device(ARRAYS, torch.device("meta"))
        back = to_host(list(there.values()))
    assert (operations.counts["to device"], operations.counts["to host"]) == (1, 1)
    assert [(part.shape, part.dtype) for part in back] == [(array.shape, array.dtype) for array in ARRAYS.values()]


def test_on_the_cpu_nothing_is_copied_but_float64():
    double, single = np.ones(2), np.ones(2, np.float32)
    found = to_device({"double": double, "single": single, "turned": np.ones((2, 3)).T}, torch.device("cpu"))
    assert found["double"].dtype == torch.float32
    single[0] = 5
    assert found["single"].tolist() == [5.0, 1.0]
    assert np.shares_memory(to_host([found["single"]])[0], single)
