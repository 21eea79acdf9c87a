import warnings
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from conftest import NUM_KEYPOINTS, square_frames
from recorder import Recorder

from benchmarks.speed.operations import Operations
from benchmarks.speed.updates import MOVED
from sb3_permakey.keypoints import CheckpointError, KeypointDetector, PermaKey, PermaKeyConfig, ReadoutConfig
from sb3_permakey.keypoints.captured import CapturedCall
from sb3_permakey.keypoints.layers import gaussian_windows, to_images
from sb3_permakey.keypoints.peaks import error_map_peaks, local_contrast
from sb3_permakey.keypoints.transfer import to_host
from sb3_permakey.keypoints.transporter import Transporter, TransporterConfig
from sb3_permakey.keypoints.trials import PlacementTrial, PrecisionTrial
from sb3_permakey.keypoints.trunk import FrozenTrunk, fold_trunk

PIXELS_PER_UNIT = 83 / 2


def test_keypoints_of_a_path_and_of_a_model_are_equal(keypoint_model, checkpoint):
    frames = square_frames(3)
    from_path = KeypointDetector(checkpoint, precision="float32").detect(frames)
    from_model = KeypointDetector(keypoint_model, precision="float32").detect(frames)
    assert from_path.centers.shape == (3, NUM_KEYPOINTS, 2)
    assert from_path.features.shape == (3, NUM_KEYPOINTS, 64)
    assert from_path.centers.dtype == from_path.features.dtype == np.float32
    np.testing.assert_array_equal(from_path.centers, from_model.centers)
    np.testing.assert_array_equal(from_path.features, from_model.features)


def test_equals_the_model_itself(keypoint_model):
    frames = square_frames(3)
    images = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        expected = keypoint_model.keypoints(images)
    found = KeypointDetector(keypoint_model, precision="float32").detect(frames)
    np.testing.assert_allclose(found.centers, expected.centers, atol=1e-5)
    np.testing.assert_allclose(found.features, expected.features, atol=1e-4)


@pytest.mark.parametrize("streaming", [False, True])
def test_frames_may_be_a_view_that_runs_backwards(keypoint_model, streaming):
    detector, frames = KeypointDetector(keypoint_model, precision="float32", streaming=streaming), square_frames(3)
    backwards, forwards = detector.detect(frames[::-1, :, ::-1]), detector.detect(frames[::-1, :, ::-1].copy())
    np.testing.assert_allclose(backwards.centers, forwards.centers, atol=1e-6)


def test_bfloat16_keeps_keypoints_within_a_quarter_pixel(keypoint_model):
    frames = square_frames(3)
    exact = KeypointDetector(keypoint_model, precision="float32").detect(frames)
    rough = KeypointDetector(keypoint_model, precision="bfloat16").detect(frames)
    assert np.abs(exact.centers - rough.centers).max() * PIXELS_PER_UNIT < 0.25
    assert rough.features.dtype == np.float32


@pytest.fixture
def bfloat16_cpu(monkeypatch):
    monkeypatch.setattr("sb3_permakey.keypoints.device._computes_in_bfloat16", lambda device: True)


def test_auto_precision_goes_back_to_float32_when_keypoints_move(keypoint_model, bfloat16_cpu):
    frames, detector = square_frames(3), KeypointDetector(keypoint_model, device="cpu")
    assert detector.precision == torch.bfloat16
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector.detect(frames)  # an untrained PointNet sees hardly any difference
    assert detector.precision == torch.bfloat16
    rough = detector.network
    rough.keypoints = lambda frames, read=rough.keypoints: read(frames)._replace(
        centers=read(frames).centers + 0.3 / PIXELS_PER_UNIT
    )
    exact = KeypointDetector(keypoint_model, precision="float32", device="cpu").detect(frames)
    with pytest.warns(UserWarning, match=r"bfloat16 moves a keypoint of the model by 0\.4\d px, more than 0.25: its"):
        found = detector.detect(frames)  # the 4th frame is among them
    assert detector.precision == torch.float32
    np.testing.assert_allclose(found.centers, exact.centers, atol=1e-6)


def test_trial_compares_ever_fewer_frames():
    trial = PrecisionTrial()
    assert [trial.rows(count) for count in (1, 2, 4, 1, 9, 1)] == [[0], [0], [0], [0], [7], []]
    assert [trial.rows(count) for count in (4077, 2, 10**6)] == [[13, 45, 109, 237, 493, 1005, 2029], [0], []]


def test_streaming_needs_no_trial(keypoint_model, bfloat16_cpu):
    assert KeypointDetector(keypoint_model, device="cpu", streaming=True).precision == torch.float32
    wanted = KeypointDetector(keypoint_model, device="cpu", streaming=True, precision="bfloat16")
    assert wanted.precision == torch.bfloat16


def test_a_detector_does_not_touch_the_model_it_was_made_of(keypoint_model):
    weight = keypoint_model.vae.encoder.blocks[0].conv.weight
    KeypointDetector(keypoint_model, precision="bfloat16")
    assert weight.dtype == torch.float32
    assert weight.requires_grad


def test_error_maps_are_at_the_frames_size(keypoint_model):
    maps = KeypointDetector(keypoint_model, precision="float32").error_maps(square_frames(2))
    assert maps.shape == (2, 2, 84, 84)
    assert 0 <= maps.min() <= maps.max() <= 1


@pytest.mark.parametrize(
    "frames",
    [np.zeros((84, 84, 3), np.uint8), np.zeros((1, 96, 96, 3), np.uint8), np.zeros((1, 84, 84, 3), np.float32)],
)
def test_other_frames_are_refused_in_a_sentence(keypoint_model, frames):
    with pytest.raises(ValueError, match=r"frames must be uint8 \(B, 84, 84, C\), not"):
        KeypointDetector(keypoint_model).detect(frames)


def test_other_channels_are_refused_in_a_sentence():
    detector = KeypointDetector(PermaKey(PermaKeyConfig(image_channels=1)))
    with pytest.raises(CheckpointError, match=r"takes images of 1 channel\(s\), but the frames have 3"):
        detector.detect(square_frames(1))


def test_peaks_are_those_of_the_first_layers_error_map(keypoint_model):
    frames, count = square_frames(3), 6
    detector = KeypointDetector(
        keypoint_model, precision="float32", readout="peaks", num_keypoints=count, min_distance_px=7
    )
    found = detector.detect(frames)
    assert detector.num_keypoints == count
    # Every second pixel of the map at the image's size is one of its cells.
    error_map = torch.from_numpy(detector.error_maps(frames))[:, 0, ::2, ::2]
    centers, heights = error_map_peaks(error_map, 2, count, 7)
    np.testing.assert_allclose(found.centers, centers, atol=1e-5)
    np.testing.assert_allclose(found.confidence, heights, atol=1e-5)
    assert found.confidence.dtype == np.float32
    np.testing.assert_allclose(found.confidence[:, 0], error_map.amax(dim=(1, 2)), atol=1e-6)
    with torch.no_grad():
        features = keypoint_model.vae.encoder(to_images(frames, torch.device("cpu")), depth=2)[-1]
    windows = gaussian_windows(torch.from_numpy(found.centers), 42, 0.1)
    means = torch.einsum("bkhw,bchw->bkc", windows, features) / windows.sum(dim=(2, 3)).unsqueeze(-1)
    np.testing.assert_allclose(found.features, means, atol=1e-4)


def test_peaks_of_the_contrast(keypoint_model):
    frames = square_frames(2)
    detector = KeypointDetector(keypoint_model, precision="float32", readout="peaks", surround_px=10.0)
    error_map = torch.from_numpy(detector.layer_error_maps(frames)[0])
    centers, heights = error_map_peaks(local_contrast(error_map, 2, 10.0), 2, NUM_KEYPOINTS, 5.0)
    found = detector.detect(frames)
    np.testing.assert_allclose(found.centers, centers, atol=1e-5)
    np.testing.assert_allclose(found.confidence, heights, atol=1e-5)
    plain = KeypointDetector(keypoint_model, precision="float32", readout="peaks").detect(frames)
    assert (found.confidence < plain.confidence).all()


def test_peaks_of_a_wider_mean_are_the_same_peaks_elsewhere(keypoint_model):
    frames = square_frames(2)
    wide, plain = (
        KeypointDetector(keypoint_model, precision="float32", readout="peaks", **settings)
        for settings in ({"centroid_px": 10.0}, {})
    )
    error_map = torch.from_numpy(wide.layer_error_maps(frames)[0])
    centers, heights = error_map_peaks(error_map, 2, NUM_KEYPOINTS, 5.0, 10.0)
    found = wide.detect(frames)
    np.testing.assert_allclose(found.centers, centers, atol=1e-5)
    np.testing.assert_allclose(found.confidence, heights, atol=1e-5)
    assert (found.confidence == plain.detect(frames).confidence).all()
    assert np.abs(found.centers - plain.detect(frames).centers).max() > 1e-3


@pytest.mark.parametrize("layers", [(0,), (2, 3), (0, 1, 2, 3)])
def test_peaks_of_any_layers(layers):
    model = PermaKey(PermaKeyConfig(num_keypoints=5, layers=layers)).eval()
    found = KeypointDetector(model, readout="peaks", precision="float32").detect(square_frames(2))
    assert found.centers.shape == (2, 5, 2)
    assert np.abs(found.centers).max() <= 1
    assert (np.diff(found.confidence, axis=1) <= 0).all()
    assert 0 <= found.confidence.min() <= found.confidence.max() <= 1


def test_pointnet_has_no_confidence(keypoint_model):
    assert KeypointDetector(keypoint_model).detect(square_frames(1)).confidence is None
    assert KeypointDetector(keypoint_model).readout == ReadoutConfig("pointnet", NUM_KEYPOINTS)


def test_a_transporter_is_read_by_its_pointnet_alone():
    torch.manual_seed(0)
    model, frames = Transporter(TransporterConfig(num_keypoints=3)).eval(), square_frames(2)
    detector = KeypointDetector(model, precision="float32")
    with torch.no_grad():
        expected = model.keypoints(to_images(frames, torch.device("cpu")))
    found = detector.detect(frames)
    np.testing.assert_allclose(found.centers, expected.centers, atol=1e-5)
    np.testing.assert_allclose(found.features, expected.features, atol=1e-4)
    with pytest.raises(ValueError, match="the model is a Transporter, which has no error maps"):
        detector.error_maps(frames)
    with pytest.raises(ValueError, match="the model is a Transporter, which has no error maps"):
        KeypointDetector(model, readout="peaks")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"readout": "maxima"}, "readout must be one of pointnet, peaks, not 'maxima'"),
        ({"readout": "peaks", "num_keypoints": 0}, "num_keypoints must be from 1 to 1764, not 0"),
        ({"readout": "peaks", "num_keypoints": 100_000}, "num_keypoints must be from 1 to 1764, not 100000"),
        ({"readout": "peaks", "min_distance_px": 0.0}, "min_distance_px must be positive, not 0.0"),
        ({"readout": "peaks", "surround_px": -1.0}, "surround_px must be positive, not -1.0"),
        ({"readout": "peaks", "centroid_px": 0.0}, "centroid_px must be positive, not 0.0"),
        ({"readout": "peaks", "centroid_px": float("nan")}, "centroid_px must be positive, not nan"),
        ({"surround_px": 18.0}, "surround_px is a setting of peaks alone: it needs the readout peaks"),
        ({"readout": "pointnet", "centroid_px": 10.0}, "centroid_px is a setting of peaks alone"),
        ({"min_distance_px": 8.0}, "min_distance_px is a setting of peaks alone"),
        ({"num_keypoints": 9}, "the model has a PointNet of 4 keypoints, not 9"),
    ],
)
def test_readouts_that_cannot_be_are_refused_in_a_sentence(keypoint_model, settings, message):
    with pytest.raises(ValueError, match=message):
        KeypointDetector(keypoint_model, **settings)


def test_unknown_precision_is_refused(keypoint_model):
    with pytest.raises(ValueError, match="precision must be"):
        KeypointDetector(keypoint_model, precision="float8")


def test_folded_trunk_equals_the_encoder(keypoint_model):
    images = to_images(square_frames(2), torch.device("cpu"))
    with torch.no_grad():
        expected = keypoint_model.vae.encoder(images, depth=2)[-1]
    weights = fold_trunk(keypoint_model)
    found = FrozenTrunk(weights)(images)
    assert (weights.channels, weights.map_size, weights.image_channels) == (64, 42, 3)
    assert expected.abs().max() > 0.1
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("streaming", [False, True])
def test_where_peaks_persist_a_tracker_gets_more_of_them(keypoint_model, streaming):
    frames, settings = square_frames(3), {"device": "cpu", "precision": "float32", "streaming": streaming}
    detector = KeypointDetector(keypoint_model, readout="peaks", num_keypoints=4, persistence=1.5, **settings)
    candidates, found = detector.candidates(frames), detector.detect(frames)
    expected = KeypointDetector(keypoint_model, readout="peaks", num_keypoints=8, **settings).detect(frames)
    for part, of_eight, first in zip(candidates, expected, found, strict=True):
        np.testing.assert_allclose(part, of_eight, atol=1e-6)
        np.testing.assert_array_equal(first, part[:, :4])
    assert detector.num_keypoints == 4
    tracked = detector.tracker().track(candidates, [True, False, False], rows=[0] * 3)
    assert tracked.features.shape == (3, 4, 64)
    assert KeypointDetector(keypoint_model, readout="pointnet", **settings).tracker() is None


@pytest.mark.parametrize("readout", ["pointnet", "peaks"])
def test_a_gpu_gets_frames_in_one_copy_and_gives_keypoints_in_one(keypoint_model, readout, monkeypatch):
    """Counted on torch's device "meta", which stands for one but lacks autocast."""
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **keywords: nullcontext())
    detector = KeypointDetector(keypoint_model, precision="float32", readout=readout, device="cpu")
    network = PermaKey(keypoint_model.config).to("meta").frozen(torch.float32, streaming=False)
    frames = torch.empty((2, 84, 84, 3), dtype=torch.uint8, device="meta")
    for _ in range(2):
        with torch.inference_mode(), Operations() as operations:
            found = detector._computed(network, frames)
    # The second time, when what stays on the device is there.
    assert not {name for name in MOVED if operations.counts[name]}
    with Operations() as operations:
        arrays = to_host([part for part in found if part is not None])
    assert operations.counts["to host"] == 1
    assert [array.shape for array in arrays][:2] == [(2, NUM_KEYPOINTS, 2), (2, NUM_KEYPOINTS, 64)]


def test_replayed_detections_are_those_made_as_they_come(keypoint_model):
    detector = KeypointDetector(keypoint_model, precision="float32", readout="peaks", device="cpu")
    frames = [square_frames(size, seed=seed) for seed in range(5) for size in (1, 3)]
    expected = [detector.detect(some) for some in frames]
    detector._captured = CapturedCall(partial(detector._computed, detector.network), most=2, capture=Recorder)
    Recorder.made = 0
    for some, keypoints in zip(frames, expected, strict=True):
        for found, wanted in zip(detector.detect(some), keypoints, strict=True):
            np.testing.assert_array_equal(found, wanted)
    assert Recorder.made == 2


class SlowPart:
    """A clock that stands still but while some functions run."""

    now = 0.0

    def __call__(self):
        return self.now

    def taking(self, seconds, function):
        def slow(*arguments):
            self.now += seconds
            return function(*arguments)

        return slow


def test_the_quicker_of_gpu_and_streaming_cpu_goes_on(keypoint_model, monkeypatch, caplog):
    caplog.set_level("INFO")
    for slow in ("here", "there"):
        there = KeypointDetector(keypoint_model, device="cpu", precision="float32", streaming=True)
        detector = KeypointDetector(keypoint_model, device="cpu", precision="float32")
        clock = SlowPart()
        detector._rival, detector._placement = there, PlacementTrial(2, 3, clock)
        frames, expected = square_frames(2), detector.network
        for kept, seconds in ((detector, 2 if slow == "here" else 1), (there, 2 if slow == "there" else 1)):
            monkeypatch.setattr(kept, "_detect", clock.taking(seconds, kept._detect))
        there.memory = None
        first = detector.detect(frames)
        for _ in range(2 + 3 - 2):
            detector.detect(frames)
        assert detector._rival is there
        assert detector.network is expected
        detector.detect(frames)
        assert detector._rival is None
        assert detector.streaming == (slow == "here")
        assert detector.network is (there.network if slow == "here" else expected)
        assert "2000.0 ms" in caplog.messages[-1]
        np.testing.assert_allclose(detector.detect(frames).centers, first.centers, atol=1e-5)
