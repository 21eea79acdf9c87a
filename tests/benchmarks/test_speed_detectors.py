import numpy as np
import pytest
from conftest import square_frames

from benchmarks.speed.detectors import all_of_a_frame, bytes_per_frame, computed_so_far, flops_per_frame
from sb3_permakey.keypoints import Distilled, DistilledConfig, KeypointDetector, PermaKey, PermaKeyConfig

TRUNK = 84**2 * 4 * 4 * 3 * 32 + 42**2 * 3 * 3 * 32 * 64
POINTNET = 84**2 * 4 * 4 * 2 * 32 + 42**2 * 3 * 3 * 32 * 64 + 21**2 * 3 * 3 * 64 * (64 + 128)


def lspn_of(layer: int) -> int:
    """Products for a patch of 2x2 cells of 32 or 64 channels: its neighbours to 512 units, 256, and the patch."""
    patch = 4 * (32, 64)[layer]
    return 8 * patch * 512 + 512 * 256 + 256 * patch


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pointnet", TRUNK + POINTNET + 42**2 * lspn_of(0) + 21**2 * lspn_of(1)),
        ("peaks", TRUNK + 42**2 * lspn_of(0)),
    ],
)
def test_arithmetic_of_a_whole_frame(name, expected):
    detector = KeypointDetector(PermaKey(PermaKeyConfig()).eval(), precision="float32", readout=name)
    assert flops_per_frame(detector, all_of_a_frame(detector)) == 2 * expected


def test_arithmetic_and_bytes_of_a_student():
    student = Distilled(DistilledConfig(num_keypoints=7, filters=(16, 32), units=8)).eval()
    detector = KeypointDetector(student, readout="peaks", device="cpu")
    computed = all_of_a_frame(detector)
    convolutions = 42**2 * (6 * 6 * 3 * 16 + 3 * 3 * 16 * 32 + 32 * 8)
    assert flops_per_frame(detector, computed) == 2 * (convolutions + 42**2 * 8 + 7 * 8 * 64)
    weights = 4 * (6 * 6 * 3 * 16 + 16 + 3 * 3 * 16 * 32 + 32 + 32 * 8 + 8)
    assert bytes_per_frame(detector, computed, 2) == weights / 2 + 2 * 4 * 42**2 * (16 + 32 + 8)


def test_streaming_counts_what_it_computes():
    detector = KeypointDetector(PermaKey(PermaKeyConfig()).eval(), precision="float32", streaming=True)
    frames = square_frames(1)
    detector.detect(frames)
    before = computed_so_far(detector)
    assert (before.frames, before.cells) == (1, [84**2, 42**2])
    changed = frames.copy()
    changed[0, 40, 40] += 1
    detector.detect(changed)
    detector.detect(frames)
    computed = computed_so_far(detector).since(before, 2)
    # A pixel is in 4x4 windows of stride 1; four rows of these are in two or three windows of 3 rows and stride 2.
    assert computed.frames == 0.5
    assert computed.cells[0] == 16 / 2
    assert computed.cells[1] in (4 / 2, 6 / 2, 9 / 2)
    assert np.all(np.array(computed.patches) < (42**2 / 10, 21**2 / 4))
    assert flops_per_frame(detector, computed) < flops_per_frame(detector, all_of_a_frame(detector)) / 4
    assert bytes_per_frame(detector, computed, 1) < bytes_per_frame(detector, all_of_a_frame(detector), 1)
