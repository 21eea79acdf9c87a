import itertools

import numpy as np
import pytest
import torch
from conftest import square_frames
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from sb3_permakey.keypoints import KeypointDetector, PermaKey, PermaKeyConfig
from sb3_permakey.keypoints.folded import FoldedPermaKey
from sb3_permakey.keypoints.layers import ENCODER
from sb3_permakey.keypoints.model import Keypoints
from sb3_permakey.keypoints.streaming import (
    FrameMemory,
    PatchMemory,
    WindowHasher,
    Windows,
    colour_codes,
    patch_windows,
)

ENVIRONMENTS = 3


@pytest.mark.parametrize(
    ("layer", "patch_size", "expected"),
    [
        # A patch and its neighbours are cells -2 to 3; the 4x4 convolution sees 1 pixel before a cell and 2 after it.
        (0, 2, Windows(first=-3, size=9, stride=2, count=42)),
        # Cells -2 to 3 of layer 1 see cells -4 to 8 of layer 0, since its stride of 2 pads behind alone.
        (1, 2, Windows(first=-5, size=16, stride=4, count=21)),
        # Cells -2 to 3 of layer 2 see -4 to 8 of layer 1, and these -8 to 18 of layer 0; 21 cells make 11 patches.
        (2, 2, Windows(first=-9, size=30, stride=8, count=11)),
        (0, 3, Windows(first=-4, size=12, stride=3, count=28)),
    ],
)
def test_windows_by_hand(layer, patch_size, expected):
    assert patch_windows(ENCODER, layer, patch_size) == expected


def test_windows_of_cells_alone_by_hand():
    # A cell of layer 1 sees cells 0 to 2 of layer 0 from twice its place on, and these 1 pixel before and 2 after.
    assert patch_windows(ENCODER, 1, 1, around=0) == Windows(first=-1, size=6, stride=2, count=42)


@pytest.mark.parametrize("layer", range(4))
def test_windows_hold_all_pixels_that_matter_and_no_others(layer):
    torch.manual_seed(0)
    network = FoldedPermaKey(PermaKey(PermaKeyConfig(layers=(layer,))).eval(), torch.float32, streaming=False)
    windows = patch_windows(ENCODER, layer, 2)
    place = windows.count // 2
    first = windows.first + windows.stride * place
    frame = np.random.default_rng(0).integers(256, size=(84, 84, 3), dtype=np.uint8)

    def error_there(frame: np.ndarray) -> float:
        with torch.no_grad():
            features = network.trunk.maps(torch.from_numpy(frame[None]).permute(0, 3, 1, 2) / 255)[layer]
            lspn = network.lspns[0]
            return float(lspn.relative_errors(features, np.array([place * (windows.count + 1)])))

    inside = slice(first, first + windows.size)
    outside = np.zeros_like(frame)
    outside[inside, inside] = frame[inside, inside]
    assert error_there(outside) == pytest.approx(error_there(frame), rel=1e-5)
    for edge in (first, first + windows.size - 1):
        for pixels in ((edge, inside), (inside, edge)):
            changed = frame.copy()
            changed[pixels] ^= 255
            assert error_there(changed) != pytest.approx(error_there(frame), rel=1e-5)


@pytest.mark.parametrize("windows", [patch_windows(ENCODER, 0, 2), patch_windows(ENCODER, 1, 2)])
def test_hashes_are_equal_where_the_windows_are_and_nowhere_else(windows):
    random = np.random.default_rng(0)
    frames = np.where(random.random((4, 84, 84, 1)) < 0.02, 255, 0).astype(np.uint8).repeat(3, axis=3)
    frames[1:, 40:] = frames[0, 40:]
    frames[2, :, :, 0] = frames[1, :, :, 0]
    margin = 20
    framed = np.full((4, 84 + 2 * margin, 84 + 2 * margin, 3), -1)
    framed[:, margin:-margin, margin:-margin] = frames
    contents = [
        framed[image, top : top + windows.size, left : left + windows.size].tobytes()
        for image in range(4)
        for top, left in itertools.product(margin + windows.first + windows.stride * np.arange(windows.count), repeat=2)
    ]
    hashes = WindowHasher(windows)(colour_codes(frames)).ravel().tolist()
    assert len(hashes) == len(contents)
    pairs = set(zip(hashes, contents, strict=True))
    assert len(pairs) == len(set(contents)) == len(set(hashes)) < len(contents)
    assert all(number % 2 for number in hashes)


def test_memory_computes_what_is_new_once():
    memory, asked = PatchMemory(), []

    def compute(places):
        asked.append(places.tolist())
        return np.float32(places * 10)

    hashes = (np.array([5, 6, 5, 7], np.uint64) << np.uint64(56)) | np.uint64(1)
    assert memory.recall(hashes, compute).tolist() == [0, 10, 0, 30]
    assert memory.recall(hashes[::-1], compute).tolist() == [30, 0, 10, 0]
    more = np.append(hashes, np.uint64(9 << 56 | 1))
    assert memory.recall(more, compute).tolist() == [0, 10, 0, 30, 40]
    assert [sorted(places) for places in asked] == [[0, 1, 3], [4]]


@pytest.mark.parametrize("capacity", [4, 16])
def test_a_full_memory_forgets_and_stays_right(capacity):
    memory, random = PatchMemory(capacity), np.random.default_rng(0)
    names = random.integers(2**63, size=50, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    values = np.arange(50, dtype=np.float32)
    computed = 0
    for _ in range(100):
        drawn = random.integers(50, size=20)

        def compute(places, drawn=drawn):
            nonlocal computed
            computed += len(places)
            return values[drawn[places]]

        assert memory.recall(names[drawn], compute).tolist() == values[drawn].tolist()
    assert 50 < computed < 2000
    assert memory.keys.size == memory.errors.size == capacity


@pytest.mark.parametrize("with_confidence", [True, False])
def test_frames_seen_before_are_not_detected_again(with_confidence):
    frames, asked = np.arange(4, dtype=np.uint8).repeat(84 * 84 * 3).reshape(4, 84, 84, 3), []

    def detect(some):
        numbers = some[:, 0, 0, 0].astype(np.float32)
        asked.append(numbers.tolist())
        centers, features = np.tile(numbers[:, None, None], (1, 3, 2)), np.tile(numbers[:, None, None], (1, 3, 5))
        return Keypoints(centers, features, centers[..., 0] / 10 if with_confidence else None)

    memory = FrameMemory(capacity=2)
    for rows, new in (([0, 1, 0], [0, 1]), ([1], []), ([0, 2], [2]), ([0], []), ([1, 2], [1]), ([0, 1, 2, 3], [0, 3])):
        before = len(asked)
        found = memory.recall(frames[rows], detect)
        assert sorted(itertools.chain.from_iterable(asked[before:])) == new
        assert found.centers.shape == (len(rows), 3, 2)
        assert found.centers[:, 0, 0].tolist() == found.features[:, 2, 4].tolist() == rows
        assert (found.confidence is not None) == with_confidence
        if with_confidence:
            assert found.confidence[:, 1].tolist() == pytest.approx([row / 10 for row in rows])
        assert len(memory.remembered) <= 2
        found.centers[:] = found.features[:] = -1  # what the caller does with its arrays is not remembered


@pytest.fixture(scope="module")
def detectors(keypoint_model):
    """Streaming and dense; the streaming one goes from example to example, so that it has much to remember."""
    return [KeypointDetector(keypoint_model, precision="float32", streaming=streaming) for streaming in (True, False)]


def assert_equal(detectors, frames):
    streaming, dense = (detector.detect(frames) for detector in detectors)
    np.testing.assert_allclose(streaming.centers, dense.centers, atol=1e-4)
    np.testing.assert_allclose(streaming.features, dense.features, atol=1e-4)
    maps = [detector.error_maps(frames) for detector in detectors]
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-4)


rectangles = st.tuples(*(st.integers(0, 83) for _ in range(4)), *(st.integers(0, 255) for _ in range(3)))
steps = st.lists(
    st.tuples(
        st.lists(st.integers(0, ENVIRONMENTS - 1), min_size=1, max_size=ENVIRONMENTS, unique=True),
        st.sampled_from(["edit", "edit", "edit", "nothing", "reset", "noise"]),
        st.lists(rectangles, min_size=1, max_size=3),
    ),
    min_size=2,
    max_size=4,
)


@given(steps=steps, seed=st.integers(0, 2**16))
@settings(max_examples=10, deadline=None, derandomize=True, phases=[Phase.generate])
def test_streaming_equals_dense(detectors, steps, seed):
    random = np.random.default_rng(seed)
    first = square_frames(ENVIRONMENTS, seed=1)
    frames = first.copy()
    for environments, kind, edits in steps:
        for environment in environments:
            if kind == "reset":
                frames[environment] = first[environment]
            elif kind == "noise":
                frames[environment] = random.integers(256, size=(84, 84, 3), dtype=np.uint8)
            elif kind == "edit":
                for top, left, height, width, *colour in edits:
                    frames[environment, top : top + height, left : left + width] = colour
        assert_equal(detectors, frames[environments])


def test_the_difference_does_not_grow_in_a_thousand_steps():
    torch.manual_seed(0)
    model = PermaKey(PermaKeyConfig(num_keypoints=3, layers=(1,))).eval()
    streaming, dense = (
        KeypointDetector(model, precision="float32", streaming=streaming) for streaming in (True, False)
    )
    for _, memory in streaming.network.memories:
        memory.__init__(capacity=2**10)  # so small that much is forgotten and computed again
    random, frame = np.random.default_rng(0), square_frames(1)[0]
    largest = []
    for step in range(1000):
        top, left = random.integers(80, size=2)
        frame[top : top + 4, left : left + 4] = random.integers(256, size=3)
        if step % 100 == 50:
            frame[:] = random.integers(256, size=3)
        found = streaming.error_maps(frame[None])
        if step % 50 == 49:
            largest.append(np.abs(found - dense.error_maps(frame[None])).max())
    assert len(largest) == 20
    assert max(largest) < 1e-5


def test_streaming_computes_only_what_is_new(keypoint_model):
    detector, frames = KeypointDetector(keypoint_model, precision="float32", streaming=True), square_frames(2)

    def newly_computed(frames):
        before = [memory.computed for _, memory in detector.network.memories]
        detector.error_maps(frames)
        return [memory.computed - count for (_, memory), count in zip(detector.network.memories, before, strict=True)]

    first, second = newly_computed(frames[:1])
    assert 0 < first < 42**2 / 2  # the grey field looks the same nearly everywhere
    assert 0 < second < 21**2 / 2
    assert newly_computed(frames[[0, 0]]) == [0, 0]
    frames[0, 60, 60] = 255
    # Windows of 9 pixels every 2 pixels and of 16 every 4: 4 or 5, and 4, see the pixel along each axis.
    first, second = newly_computed(frames[:1])
    assert first in (16, 20, 25)
    assert second == 16


def test_streaming_is_for_cpus_and_permakeys(keypoint_model):
    assert KeypointDetector(keypoint_model, streaming=True).streaming == (not torch.cuda.is_available())
    assert not KeypointDetector(keypoint_model).streaming
