import numpy as np
import pytest
import torch
from conftest import NUM_KEYPOINTS, square_frames
from PIL import Image

from benchmarks.figures.paper import (
    FIGURES,
    Figure2,
    Figure6,
    Figure7,
    Figure10,
    Seeds,
    chosen_frames,
    dim_outside_windows,
    draw_together,
    figure2_rows,
    figure6_rows,
    figure7_rows,
    figure10_rows,
    main,
    seeds_rows,
)
from sb3_permakey.figures import GAP_PX, LABEL_PX
from sb3_permakey.frames.reader import FrameReader
from sb3_permakey.keypoints import PermaKey, PermaKeyConfig, Transporter, TransporterConfig, save_checkpoint

TILE_PX = 84 * 3 + GAP_PX


@pytest.fixture(scope="module")
def transporter(tmp_path_factory):
    torch.manual_seed(0)
    model = Transporter(TransporterConfig(num_keypoints=3))
    return save_checkpoint(model, tmp_path_factory.mktemp("checkpoint") / "transporter.safetensors")


@pytest.fixture(scope="module")
def other_layers(tmp_path_factory):
    """A checkpoint of six keypoints on layers 2 and 3."""
    torch.manual_seed(0)
    model = PermaKey(PermaKeyConfig(num_keypoints=6, layers=(2, 3)))
    return save_checkpoint(model, tmp_path_factory.mktemp("checkpoint") / "layers.safetensors")


@pytest.fixture
def flags(frame_store, tmp_path):
    return ["--frames", str(frame_store.path), "--out", str(tmp_path / "figure.png"), "--first", "1", "--spacing", "2"]


@pytest.fixture
def refused(capsys):
    """Runs a command line that must end with exit code 2; its errors."""

    def refused(*arguments) -> str:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        errors = " ".join(capsys.readouterr().err.replace("│", " ").split())
        assert stop.value.code == 2, errors
        return errors

    return refused


def test_help_names_every_figure(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    output = capsys.readouterr().out
    for figure in (2, 5, 6, 7, 8, 10):
        assert f"figure{figure}" in output


@pytest.mark.parametrize(
    ("command", "num_rows"), [("figure2", 7), ("seeds", 2), ("figure6", 3), ("figure7", 3), ("figure10", 3)]
)
def test_each_command_writes_a_picture(command, num_rows, checkpoint, transporter, other_layers, flags, tmp_path):
    assert command in FIGURES
    checkpoints = {
        "figure2": ["--permakey", checkpoint, "--transporter", transporter, "--peaks", "--surround-px", "18"],
        "figure10": ["--checkpoint", transporter],
    }.get(command, ["--checkpoints", checkpoint, other_layers])
    main([command, *map(str, checkpoints), *flags, "--columns", "3"])
    assert Image.open(tmp_path / "figure.png").size == (LABEL_PX + 3 * TILE_PX, num_rows * TILE_PX + GAP_PX)


def test_frames_are_evenly_spaced_test_frames(frame_store, tmp_path):
    wanted = {"frames": frame_store.path, "out": tmp_path / "figure.png", "checkpoints": ("any",)}
    frames = chosen_frames(Seeds(**wanted, first=1, spacing=2, columns=3))
    np.testing.assert_array_equal(frames, frame_store.splits["test"][[1, 3, 5]])
    barred = chosen_frames(Seeds(**wanted, first=1, spacing=2, columns=3, distractor="both"))
    reader = FrameReader(frame_store, torch.device("cpu"), "both")
    np.testing.assert_array_equal(barred, reader.frames("test", np.arange(8))[[1, 3, 5]])
    assert (barred != frames).any(axis=(1, 2, 3)).all()


def test_labels_of_the_rows(checkpoint, transporter, other_layers, tmp_path):
    frames, files = square_frames(2), {"frames": tmp_path, "out": tmp_path / "figure.png"}

    def labels(rows) -> list[str]:
        assert all(len(pictures) == 2 for _, pictures in rows)
        return [label.replace("\n", " ") for label, _ in rows]

    methods = ["frame", "Transporter keypoints", "PermaKey keypoints"]
    figure2 = figure2_rows(Figure2(permakey=other_layers, transporter=transporter, **files), frames)
    assert labels(figure2) == [*methods, "error map of layer 2", "error map of layer 3"]
    figure2 = figure2_rows(Figure2(permakey=checkpoint, transporter=transporter, peaks=True, **files), frames)
    assert labels(figure2) == [*methods, "PermaKey peaks", "error map of layer 0", "error map of layer 1"]
    several = {"checkpoints": (other_layers, checkpoint), **files}
    assert labels(figure6_rows(Figure6(**several), frames)) == ["frame", "6 keypoints", f"{NUM_KEYPOINTS} keypoints"]
    assert labels(figure7_rows(Figure7(**several), frames)) == ["frame", "layers (2, 3)", "layers (0, 1)"]
    figure10 = figure10_rows(Figure10(checkpoint=checkpoint, **files), frames)
    assert labels(figure10) == ["frame", "keypoints' centres", "keypoints' windows"]
    assert labels(seeds_rows(Seeds(**several), frames)) == ["frame", "keypoints of 2 seeds"]


def test_each_checkpoint_has_one_colour():
    frames = np.zeros((1, 84, 84, 3), np.uint8)
    first = np.array([[[-1.0, -1.0], [1.0, 1.0]]])  # top left and bottom right
    second = np.array([[[-1.0, 1.0], [1.0, -1.0], [0.0, 0.0]]])
    (picture,) = draw_together(frames, [first, second])
    red, cyan = (255, 25, 25), (25, 255, 255)  # half the circle of hues apart
    assert [picture.getpixel(place) for place in ((1, 1), (250, 250))] == [red] * 2
    assert [picture.getpixel(place) for place in ((250, 1), (1, 250), (126, 126))] == [cyan] * 3
    assert {color for _, color in picture.getcolors()} == {red, cyan, (0, 0, 0)}


def test_frames_are_dimmed_outside_the_windows():
    frames = np.full((2, 84, 84, 3), (200, 100, 0), np.uint8)
    # Two keypoints on the pixel (0, 0); the next pixel is one std away, so that its weight is 2 exp(-1) = 0.736.
    centers = np.full((2, 2, 2), -1.0, np.float32)
    centers[1, 1] = 1.0  # of the second frame, one keypoint on the last pixel: weight exp(-1) = 0.368 beside each
    dimmed = dim_outside_windows(frames, centers, window_std=2 / 83)
    assert dimmed.dtype == np.uint8
    assert dimmed[0, 0, 0].tolist() == [200, 100, 0]  # twice the frame's own colour without the limit
    assert dimmed[0, 0, 1].tolist() == dimmed[0, 1, 0].tolist() == [147, 74, 0]
    assert dimmed[0, 83, 83].tolist() == [0, 0, 0]
    assert dimmed[1, 0, 1].tolist() == dimmed[1, 82, 83].tolist() == [74, 37, 0]
    assert dimmed[1, 40, 40].tolist() == [0, 0, 0]


def test_wrong_input_ends_with_one_sentence(refused, checkpoint, transporter, flags, frame_store, tmp_path):
    figure2, columns = ["figure2", *flags, "--permakey"], ["--columns", "3"]
    nowhere = tmp_path / "nowhere.safetensors"
    assert f"no keypoint checkpoint at {nowhere}" in refused(*figure2, nowhere, "--transporter", transporter, *columns)
    assert f"{transporter} is a Transporter, which has no error maps" in refused(
        *figure2, transporter, "--transporter", transporter, *columns
    )
    assert f"{checkpoint} is a PermaKey, not a Transporter" in refused(
        *figure2, checkpoint, "--transporter", checkpoint, *columns
    )
    assert f"{transporter} is a Transporter, which predicts no layers" in refused(
        "figure7", *flags, "--checkpoints", checkpoint, transporter, *columns
    )
    assert f"{frame_store.path} holds 8 test frames, but the last of 5 columns would be frame 9" in refused(
        "figure10", *flags, "--checkpoint", checkpoint, "--columns", 5
    )
    assert "checkpoints must name at least one checkpoint" in refused("seeds", *flags, "--checkpoints")
    assert "spacing must be at least 1, not 0" in refused(
        "figure10", *flags[:-1], 0, "--checkpoint", checkpoint, *columns
    )
    assert not (tmp_path / "figure.png").exists()
