import importlib
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from sb3_permakey.cli import main
from sb3_permakey.commands.detect import DetectConfig, detect
from sb3_permakey.figures import save_mp4, save_png
from sb3_permakey.frames.sources import FrameSourceError, frames_at, frames_of_video
from sb3_permakey.frames.store import write_store
from sb3_permakey.keypoints import READOUTS, KeypointDetector, ReadoutConfig, read_keypoints
from sb3_permakey.keypoints.peaks import KeypointTracker

OBJECT = (230, 200, 60)
PEAKS = ReadoutConfig("peaks", num_keypoints=3)


def pictures(size: tuple[int, int], count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Frames (N, H, W, 3) on which one object moves, and its boxes (N, 4): top, left, bottom, right, all within it."""
    height, width = size
    frames = np.full((count, height, width, 3), 40, np.uint8)
    corners = [(height // 6 + 3 * index, width // 6 + 4 * index) for index in range(count)]
    boxes = np.array([(top, left, top + height // 8 - 1, left + width // 10 - 1) for top, left in corners])
    for frame, (top, left, bottom, right) in zip(frames, boxes, strict=True):
        frame[top : bottom + 1, left : right + 1] = OBJECT
    return frames, boxes


@pytest.fixture
def brightest(monkeypatch):
    """A readout whose one keypoint is the brightest pixel."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "toys")
    known = dict(READOUTS)
    yield importlib.import_module("brightest_readout").BrightestConfig("brightest", num_keypoints=1)
    sys.modules.pop("brightest_readout", None)
    READOUTS.clear()
    READOUTS.update(known)


@pytest.mark.parametrize("suffix", [".parquet", ".npz", ".csv"])
@pytest.mark.parametrize("size", [(84, 84), (120, 200), (210, 160)])
def test_a_keypoint_drawn_from_the_file_lies_on_the_object(checkpoint, brightest, tmp_path, suffix, size):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow.parquet")
    frames, _ = pictures(size)
    np.save(tmp_path / "frames.npy", frames)
    detect(DetectConfig(checkpoint, tmp_path / f"k{suffix}", frames=tmp_path / "frames.npy", readout=brightest))
    found = read_keypoints(tmp_path / f"k{suffix}")
    assert found.size == size
    for frame, (row, column) in zip(frames, found.centers_px[:, 0], strict=True):
        drawn = Image.fromarray(frame)
        ImageDraw.Draw(drawn).point((round(float(column)), round(float(row))), fill=(0, 0, 255))
        ((top, left),) = np.argwhere((np.asarray(drawn) == (0, 0, 255)).all(axis=-1))
        assert tuple(frame[top, left]) == OBJECT


@pytest.mark.parametrize("size", [(84, 84), (120, 200), (210, 160)])
def test_the_highest_peak_of_a_trained_model_is_at_the_object(tmp_path, size):
    frames, boxes = pictures(size)
    np.save(tmp_path / "frames.npy", frames)
    settings = {"frames": tmp_path / "frames.npy", "readout": PEAKS}
    found = detect(DetectConfig(Path("frostbite-teacher"), tmp_path / "k.npz", **settings))
    highest = np.take_along_axis(found.centers_px, found.places.argmin(axis=1)[:, None, None], axis=1)[:, 0]
    margin = 3 * np.array(size) / 84  # as scores have it: 3 pixels of the 84x84 frame
    assert (highest >= boxes[:, :2] - margin).all()
    assert (highest <= boxes[:, 2:] + margin).all()


def test_peaks_are_followed_through_each_episode_of_a_store(tmp_path):
    frames, _ = pictures((84, 84), count=15)
    episodes = [frames[:9], frames[9:12], frames[12:]]
    store = write_store(tmp_path / "frames", episodes, (0.6, 0.2, 0.2), {"game": "Square", "preprocessing": None})
    settings = {"frames": store.path, "readout": PEAKS, "features": True}
    found = detect(DetectConfig(Path("mspacman"), tmp_path / "k.npz", **settings))
    detector, at = KeypointDetector("mspacman", readout=PEAKS), 0
    for number, episode in enumerate(episodes):
        tracker = KeypointTracker()
        for frame in episode:
            expected = tracker.track(detector.detect(frame[None]), [False])
            assert np.allclose(found.centers[at], expected.centers[0], atol=1e-2)
            assert np.allclose(found.confidence[at], expected.confidence[0], atol=1e-2)
            assert (found.frames[at], found.episodes[at]) == (at, number)
            at += 1
    assert at == len(found.frames)
    assert (np.diff(found.places, axis=0) != 0).any()
    assert found.features.shape == (15, 3, detector.feature_channels)


@pytest.mark.parametrize("size", [(120, 200), (96, 64)])
def test_each_frame_of_a_video_is_read_once_and_a_keypoint_drawn_on_it_lies_on_the_object(
    checkpoint, brightest, tmp_path, size
):
    frames, _ = pictures(size, count=12)
    save_mp4(tmp_path / "v.mp4", frames, 15)
    detect(DetectConfig(checkpoint, tmp_path / "k.csv", video=tmp_path / "v.mp4", readout=brightest))
    found = read_keypoints(tmp_path / "k.csv")
    assert (found.size, found.centers_px.shape) == (size, (12, 1, 2))
    video = [frame for _, frame in frames_of_video(tmp_path / "v.mp4").frames]
    for frame, center in zip(video, found.centers_px[:, 0], strict=True):
        # A video's colours are compressed: near the object's, far from the ground's.
        assert np.abs(frame[tuple(center.round().astype(int))].astype(int) - OBJECT).max() < 40


def test_a_video_that_is_cut_short_is_told(tmp_path):
    frames, _ = pictures((120, 200), count=20)
    video = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 15, (200, 120))
    for frame in frames:
        video.write(frame)
    video.release()
    assert len(list(frames_of_video(tmp_path / "v.avi").frames)) == 20
    whole = (tmp_path / "v.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match=r"cut.avi says that it has \d+ frames, but \d+ could be read"):
        assert 0 < len(list(frames_of_video(tmp_path / "cut.avi").frames)) < 18


def test_pictures_in_the_order_of_their_numbers(tmp_path):
    frames, _ = pictures((30, 50), count=11)
    for index, frame in enumerate(frames):
        save_png(tmp_path / f"frame{index}.png", frame)
    (tmp_path / "notes.txt").write_text("not a picture")
    assert np.array_equal([frame for _, frame in frames_at(tmp_path).frames], frames)


def test_gray_frames_and_a_limit(checkpoint, tmp_path):
    frames, _ = pictures((120, 200))
    np.save(tmp_path / "gray.npy", frames[..., 0])
    np.save(tmp_path / "colour.npy", np.repeat(frames[..., :1], 3, axis=-1))
    gray, colour = (
        detect(DetectConfig(checkpoint, tmp_path / f"{name}.npz", frames=tmp_path / f"{name}.npy", limit=5))
        for name in ("gray", "colour")
    )
    assert gray.frames.tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(gray.centers, colour.centers)


def test_a_game_is_the_same_with_the_same_seed(tmp_path):
    def centers(seed: int, out: str) -> np.ndarray:
        config = DetectConfig(Path("mspacman"), tmp_path / out, game="mspacman", limit=40, seed=seed, readout=PEAKS)
        found = detect(config)
        assert found.size == (210, 160)
        assert found.description["source"] == "ALE/MsPacman-v5"
        return found.centers

    first, again, other = (centers(seed, f"{index}.npz") for index, seed in enumerate((1, 1, 2)))
    assert first.shape == (40, 3, 2)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_command_says_what_it_wrote(checkpoint, tmp_path, capsys):
    np.save(tmp_path / "frames.npy", pictures((120, 200))[0])
    files = ("--frames", str(tmp_path / "frames.npy"), "--out", str(tmp_path / "k.csv"))
    main(["detect", "--checkpoint", str(checkpoint), *files, "--readout", "peaks", "--num-keypoints", "3"])
    output = capsys.readouterr().out
    assert f"{tmp_path / 'k.csv'}: 3 keypoints on each of 12 frames of 200x120 pixels\n" in output
    assert "next: in Python, sb3_permakey.keypoints.read_keypoints(" in output


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "give one of frames, video, game, not none"),
        ({"video": Path("v.mp4"), "game": "Pong"}, "give one of frames, video, game, not video and game"),
        ({"video": Path("v.mp4"), "seed": 1}, "seed is of a game"),
        ({"game": "Pong", "limit": 0}, "limit must be at least 1, not 0"),
        ({"game": "Pong", "out": Path("k.pkl")}, "out must name a .parquet or .npz or .csv file, not k.pkl"),
    ],
)
def test_settings_that_cannot_be(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        DetectConfig(**{"checkpoint": Path("mspacman"), "out": Path("k.csv"), **settings})


def test_wrong_sources(checkpoint, tmp_path):
    def refused(**source: Path) -> str:
        with pytest.raises(FrameSourceError) as error:
            detect(DetectConfig(checkpoint, tmp_path / "k.csv", **source))
        return str(error.value)

    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "short.npy").write_bytes(b"\x93NUMPY")
    np.save(tmp_path / "floats.npy", np.zeros((2, 84, 84, 3)))
    np.save(tmp_path / "none.npy", np.zeros((0, 84, 84, 3), np.uint8))
    (tmp_path / "mixed").mkdir()
    for name, size in (("a", (30, 50)), ("b", (30, 40))):
        save_png(tmp_path / "mixed" / f"{name}.png", pictures(size)[0][0])
    (tmp_path / "broken").mkdir()
    whole = (tmp_path / "mixed" / "a.png").read_bytes()
    (tmp_path / "broken" / "a.png").write_bytes(whole[: len(whole) // 2])
    assert "no frames at" in refused(frames=tmp_path / "nowhere")
    assert "holds neither frames.json of a store nor pictures" in refused(frames=tmp_path / "empty")
    assert "no video at" in refused(video=tmp_path / "nowhere.mp4")
    assert "is not a video that OpenCV can read" in refused(video=tmp_path / "text.mp4")
    assert "is not a whole .npy file" in refused(frames=tmp_path / "short.npy")
    assert "must hold frames uint8 (N, H, W, 3), or gray, not float64" in refused(frames=tmp_path / "floats.npy")
    assert "holds no frames" in refused(frames=tmp_path / "none.npy")
    assert "is (30, 40, 3), the first was (30, 50, 3)" in refused(frames=tmp_path / "mixed")
    assert "a.png is not a whole picture" in refused(frames=tmp_path / "broken")
    assert not (tmp_path / "k.csv").exists()


def test_what_is_missing_is_told_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match="pyarrow"):
        detect(DetectConfig(Path("nowhere"), tmp_path / "k.parquet", game="Pong"))
