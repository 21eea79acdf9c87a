import mmap
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import square_frames
from PIL import Image

from sb3_permakey.figures import (
    draw_attention,
    draw_keypoints,
    heat,
    keypoint_animation,
    keypoint_colors,
    keypoint_panel,
    mark_keypoints,
    panel,
    save_gif,
    save_mp4,
    save_png,
    side_by_side,
)
from sb3_permakey.keypoints import KeypointDetector, Keypoints
from sb3_permakey.keypoints.transporter import Transporter, TransporterConfig


def test_a_keypoint_is_drawn_at_its_pixel():
    frame = np.zeros((84, 84, 3), np.uint8)
    drawn = np.asarray(draw_keypoints(frame, np.array([[1.0, -1.0], [0.0, 0.0]]), window_std=0.05, scale=3))
    assert drawn.shape == (252, 252, 3)
    assert drawn[250, 1].max() == 255  # bottom left: pixel (83, 0) enlarged
    assert drawn[126, 126].max() == 255
    assert drawn[60, 200].max() == 0


def test_keypoints_without_rings_in_given_colours():
    frame, centers = np.zeros((84, 84, 3), np.uint8), np.array([[-1.0, -1.0], [1.0, 1.0]])
    drawn = np.asarray(draw_keypoints(frame, centers, None, colors=[(255, 0, 0), (0, 0, 255)]))
    assert drawn[1, 1].tolist() == [255, 0, 0]
    assert drawn[250, 250].tolist() == [0, 0, 255]
    assert drawn[10:-10, 10:-10].max() == 0


def test_discs_are_as_large_as_what_looks_there_with_a_slice_for_each_query():
    frame, centers = np.zeros((84, 84, 3), np.uint8), np.array([[0.0, 0.0], [0.0, 0.7], [0.7, -0.7]])
    # Both queries look at the first keypoint, the second one half of the time; nobody at the last.
    drawn = np.asarray(draw_attention(frame, centers, np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]))).astype(int)
    first, second = (drawn[:, left : left + 100].max(axis=-1) > 100 for left in (76, 164))
    assert first.sum() / second.sum() == pytest.approx(3, rel=0.1)
    reds, blues = (((drawn[:, 76:176, one] - drawn[:, 76:176, other]) > 100).sum() for one, other in ((0, 2), (2, 0)))
    assert reds / (reds + blues) == pytest.approx(2 / 3, rel=0.1)
    assert (drawn[160:, :80].max(axis=-1) > 100).sum() < 15


def test_keypoints_on_the_picture_that_was_resized_to_the_frame():
    picture = np.zeros((210, 168, 3), np.uint8)  # 2.5 and 2 pixels for each of the frame's
    drawn = np.asarray(draw_keypoints(picture, np.array([[-1.0, 1.0]]), window_std=0.2, scale=2))
    assert drawn.shape == (420, 336, 3)
    middle = (round(0.5 * 5), round(83.5 * 4))
    assert drawn[middle].max() == 255
    ring = 0.2 * 83 / 2
    assert drawn[middle[0] + round(ring * 5) - 1, 330:336].max() == 255
    assert drawn[:6, middle[1] - round(ring * 4) - 2 : middle[1] - round(ring * 4) + 3].max() == 255
    assert drawn[:6, middle[1] - round(ring * 4) + 5 : middle[1] - 8].max() == 0
    assert drawn[middle[0] + round(ring * 5) + 3 :].max() == 0


def test_labels_stand_beside_their_dots_inside_the_picture_and_apart():
    def white(centers: np.ndarray) -> np.ndarray:
        picture = Image.new("RGB", (504, 504))
        drawn = mark_keypoints(picture, centers, None, [(9, 9, 9)] * len(centers), ["8"] * len(centers))
        assert drawn is picture
        return (np.asarray(drawn) > 128).all(axis=-1)

    centers = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.03]])
    alone, together = white(centers[3:4]).sum(), white(centers)
    assert alone > 20
    # A letter that a dot, another letter or the picture's edge covered would have fewer pixels.
    assert together.sum() == len(centers) * alone
    for row, column in np.rint(6 * ((centers + 1) * 83 / 2 + 0.5)).astype(int):
        assert together[max(row - 30, 0) : row + 30, max(column - 30, 0) : column + 30].sum() >= alone


def test_pictures_side_by_side_have_titles_a_caption_and_even_sides():
    red, green = (Image.new("RGB", (101, 51), color) for color in ("red", (0, 255, 0)))
    sheet = side_by_side([red, green], ["one", "two " * 50], "caption")
    assert (sheet.width % 2, sheet.height % 2) == (0, 0)
    pixels = np.asarray(sheet)
    (red_rows, red_columns), (green_rows, green_columns) = (
        np.nonzero((pixels == color).all(axis=-1)) for color in ((255, 0, 0), (0, 255, 0))
    )
    assert (np.ptp(red_rows) + 1, np.ptp(red_columns) + 1) == (51, 101)
    assert red_columns.max() < green_columns.min()
    first, last = green_rows.min(), green_rows.max()
    assert pixels[:first].min() < 128  # titles above
    assert pixels[last + 1 :].min() < 128  # a caption below
    assert pixels[:first, green_columns.max() + 1 :].min() == 255  # a long title is cut


def test_heat_goes_from_black_to_white():
    assert heat(np.array([[0.0, 1.0]])).tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_a_panel_lays_its_rows_out():
    red, green = (Image.new("RGB", (252, 252), color) for color in ("red", (0, 255, 0)))
    picture = panel([("one", [red, green]), ("two", [green])])
    assert picture.shape == (2 * 258 + 6, 110 + 2 * 258, 3)
    for row, column, color in ((0, 0, [255, 0, 0]), (0, 1, [0, 255, 0]), (1, 0, [0, 255, 0]), (1, 1, [255] * 3)):
        tile = picture[6 + 258 * row :, 110 + 258 * column :][:252, :252]
        assert (tile == color).all()
    for row in (0, 1):
        assert picture[6 + 258 * row :, :110][:252].min() == 0  # the label


def test_panel_has_a_row_for_each_layer(keypoint_model):
    detector, frames = KeypointDetector(keypoint_model), square_frames(3)
    panel = keypoint_panel([detector], frames)
    assert panel.dtype == np.uint8
    assert panel.shape[0] > 4 * 252
    assert panel.shape[1] > 3 * 252


def test_panel_and_animation_of_peaks(keypoint_model):
    detector, frames = KeypointDetector(keypoint_model, readout="peaks", num_keypoints=6), square_frames(3)
    assert keypoint_panel([detector], frames).shape == keypoint_panel([KeypointDetector(keypoint_model)], frames).shape
    assert len(keypoint_animation(detector, frames)) == 3


def test_panel_of_two_readouts_has_a_row_for_each(keypoint_model):
    detectors = [KeypointDetector(keypoint_model, readout=name) for name in ("pointnet", "peaks")]
    frames = square_frames(2)
    both = keypoint_panel(detectors, frames)
    alone = [keypoint_panel([detector], frames) for detector in detectors]
    assert (both[: 2 * 258] == alone[0][: 2 * 258]).all()
    assert (both[2 * 258 : 3 * 258] == alone[1][258 : 2 * 258]).all()
    assert (both[3 * 258 :] == alone[0][2 * 258 :]).all()


def test_an_animation_keeps_the_colours_of_peaks_over_its_batches(keypoint_model):
    detector, frames = KeypointDetector(keypoint_model, readout="peaks", num_keypoints=2), square_frames(5)
    top, bottom = np.array([-0.5, 0.0], np.float32), np.array([0.5, 0.0], np.float32)
    turns = iter([[top, bottom, top, bottom], [bottom, top]])  # which of the two is the higher one, frame by frame

    def detect(batch):
        firsts = next(turns)[: len(batch)]
        centers = np.stack([[first, -first] for first in firsts])
        return Keypoints(centers, np.zeros((len(batch), 2, 1), np.float32), np.ones((len(batch), 2), np.float32))

    detector.candidates = detect
    pictures = keypoint_animation(detector, frames, batch_size=4)
    row, column = round(3 * (0.25 * 83 + 0.5)), round(3 * (0.5 * 83 + 0.5))
    colors = {picture.getpixel((column, row)) for picture in pictures}
    assert colors == {keypoint_colors(2)[0]}


def test_panel_of_a_transporter_has_no_error_maps():
    panel = keypoint_panel([KeypointDetector(Transporter(TransporterConfig(num_keypoints=3)))], square_frames(3))
    assert 2 * 252 < panel.shape[0] < 3 * 252


def test_a_video_that_fails_leaves_the_old_one_alone(tmp_path):
    def pictures():
        yield np.zeros((16, 16, 3), np.uint8)
        raise ArithmeticError

    (tmp_path / "x.mp4").write_bytes(b"old")
    with pytest.raises(ArithmeticError):
        save_mp4(tmp_path / "x.mp4", pictures(), frames_per_second=10)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_files(keypoint_model, tmp_path):
    detector, frames = KeypointDetector(keypoint_model), square_frames(4)
    frames[np.arange(4), :4, :4] = np.arange(4, dtype=np.uint8)[:, None, None, None] * 80  # no two alike
    pictures = keypoint_animation(detector, frames)
    save_png(tmp_path / "one.png", np.asarray(pictures[0]))
    save_gif(tmp_path / "all.gif", pictures, frames_per_second=10)
    save_mp4(tmp_path / "all.mp4", map(np.asarray, pictures), frames_per_second=10)
    assert Image.open(tmp_path / "one.png").size == (252, 252)
    assert Image.open(tmp_path / "all.gif").n_frames == 4
    assert (tmp_path / "all.mp4").read_bytes()[4:8] == b"ftyp"
    assert len(list(tmp_path.iterdir())) == 3


@pytest.fixture
def more_reserved_than_there_is():
    """The process has reserved twice the machine's memory, none of it used, as large replay buffers do."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    reserved = [mmap.mmap(-1, memory // 2, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(4)]
    yield
    for part in reserved:
        part.close()


@pytest.mark.skipif(sys.platform != "linux", reason="how memory is reserved is the system's affair")
def test_a_video_beside_large_replay_buffers(more_reserved_than_there_is, tmp_path):
    try:
        subprocess.run(["true"], preexec_fn=os.setpgrp, check=True)
    except OSError:
        pass
    else:
        pytest.skip("this system lets such a process fork")
    save_mp4(tmp_path / "x.mp4", [np.zeros((84, 84, 3), np.uint8)] * 2, frames_per_second=10)
    assert (tmp_path / "x.mp4").read_bytes()[4:8] == b"ftyp"
