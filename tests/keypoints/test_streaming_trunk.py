import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_permakey.keypoints.layers import ENCODER, TrunkShape, same_padding, to_images
from sb3_permakey.keypoints.streaming_trunk import CellLayer, StreamingTrunk, cells_that_see
from sb3_permakey.keypoints.trunk import FoldedConvolutions

LAYERS = list(zip(ENCODER.kernels, ENCODER.strides, strict=True))


class CountingConvolutions(FoldedConvolutions):
    """Counts the frames that are computed as a whole."""

    whole_frames = 0

    def maps(self, images):
        self.whole_frames += len(images)
        return super().maps(images)


def convolutions(channels: int = 3, shape: TrunkShape = ENCODER) -> CountingConvolutions:
    torch.manual_seed(0)
    sizes = itertools.pairwise((channels, *shape.filters))
    layers = zip(sizes, shape.kernels, shape.strides, strict=True)
    return CountingConvolutions(
        (torch.randn(after, before, k, k) / (before * k * k) ** 0.5, torch.randn(after) / 4, stride)
        for (before, after), k, stride in layers
    )


def random_frames(count: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(count, 84, 84, channels), dtype=np.uint8)


@torch.inference_mode()
def assert_maps_are_those_of(trunk: StreamingTrunk, frames: np.ndarray) -> None:
    expected = FoldedConvolutions.maps(trunk.trunk, to_images(frames, torch.device("cpu")))
    for found, wanted in zip(trunk.maps(frames), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=2e-6, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 24), st.sampled_from([*LAYERS, (1, 1), (1, 2), (5, 3)]), st.integers(0, 2**32 - 1))
def test_cells_that_see_a_changed_one(size, kernel_and_stride, seed):
    kernel, stride = kernel_and_stride
    changed = np.random.default_rng(seed).random((2, size, size)) < 0.05
    before, after = same_padding(size, kernel, stride)
    padded = np.pad(changed, ((0, 0), (before, after), (before, after)))
    count = -(-size // stride)
    expected = np.array(
        [
            [[image[y * stride :, x * stride :][:kernel, :kernel].any() for x in range(count)] for y in range(count)]
            for image in padded
        ]
    )
    layer = CellLayer(torch.empty(0), torch.empty(0), kernel, stride)
    np.testing.assert_array_equal(cells_that_see(changed, layer), expected)


EDITS = st.one_of(
    st.tuples(st.just("rectangle"), st.integers(0, 83), st.integers(0, 83), st.integers(1, 40)),
    st.tuples(st.just("everywhere"), st.integers(0, 2**32 - 1)),
    st.tuples(st.just("nothing")),
    st.tuples(st.just("other order")),
    st.tuples(st.just("other number"), st.integers(1, 3)),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(EDITS, min_size=1, max_size=12))
def test_maps_equal_those_of_the_whole_frames(edits):
    trunk, frames = StreamingTrunk(convolutions()), random_frames(2)
    assert_maps_are_those_of(trunk, frames)
    for number, (kind, *where) in enumerate(edits):
        frames = frames.copy()
        if kind == "rectangle":
            row, column, side = where
            frames[number % len(frames), row : row + side, column : column + side] += 57
        elif kind == "everywhere":
            frames = random_frames(len(frames), seed=where[0])
        elif kind == "other order":
            frames = frames[::-1].copy()
        elif kind == "other number":
            frames = random_frames(where[0], seed=number)
        assert_maps_are_those_of(trunk, frames)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_small_changes_take_no_whole_frame(channels):
    trunk, frames = StreamingTrunk(convolutions(channels)), random_frames(2, channels)
    for corner in ((0, 0), (0, 83), (83, 0), (83, 83), (40, 41)):
        frames = frames.copy()
        frames[0, corner[0], corner[1], channels - 1] += 100
        assert_maps_are_those_of(trunk, frames)
    assert trunk.trunk.whole_frames == 2


def test_where_much_has_changed_frames_are_computed_as_a_whole():
    trunk = StreamingTrunk(convolutions())
    for seed in range(3):
        assert_maps_are_those_of(trunk, random_frames(1, seed=seed))
    assert trunk.trunk.whole_frames == 3


def test_nothing_adds_up():
    trunk, frames = StreamingTrunk(convolutions(shape=TrunkShape((4, 3), (8, 8), (1, 2)))), random_frames(1)
    rng = np.random.default_rng(1)
    with torch.inference_mode():
        trunk.maps(frames)
        for _ in range(3000):
            frames = frames.copy()
            row, column = rng.integers(80, size=2)
            frames[0, row : row + 4, column : column + 4] = rng.integers(256, size=3)
            trunk.maps(frames)
    assert trunk.trunk.whole_frames == 1
    assert_maps_are_those_of(trunk, frames)


def test_an_interrupted_call_leaves_nothing_wrong_behind(monkeypatch):
    trunk, frames = StreamingTrunk(convolutions()), random_frames(1)
    assert_maps_are_those_of(trunk, frames)
    changed = frames.copy()
    changed[0, 40, 40] += 100

    def interrupted(index, *cells):
        if index == 1:
            raise KeyboardInterrupt
        return whole(index, *cells)

    whole = trunk._cells
    with monkeypatch.context() as patched, torch.inference_mode():
        patched.setattr(trunk, "_cells", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trunk.maps(changed)
    assert_maps_are_those_of(trunk, frames)
