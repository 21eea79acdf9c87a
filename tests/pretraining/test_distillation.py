import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import square_frames

from sb3_permakey.cli import main
from sb3_permakey.envs.atari import PREPROCESSING
from sb3_permakey.envs.distractors import BAR_COLOR
from sb3_permakey.frames.reader import FrameReader
from sb3_permakey.frames.store import write_store
from sb3_permakey.keypoints import (
    CheckpointError,
    Distilled,
    KeypointDetector,
    Transporter,
    checkpoint_metadata,
    load_checkpoint,
    save_checkpoint,
)
from sb3_permakey.keypoints.layers import gaussian_windows
from sb3_permakey.pretraining.distillation import (
    CROP,
    PLACES,
    DistilConfig,
    Distillation,
    crop_corners,
    crop_windows,
    cropped,
    distil,
    known_cells,
)
from sb3_permakey.pretraining.state import StateError

SHORT = {"max_steps": 3, "log_every_steps": 1, "filters": (8, 8), "units": 8, "most_frames": 32}


@pytest.fixture
def square_store(tmp_path):
    episodes = [square_frames(40, seed=0), square_frames(8, seed=1), square_frames(8, seed=2)]
    return write_store(
        tmp_path / "frames", episodes, (0.7, 0.15, 0.15), {"game": "MovingSquare", "preprocessing": PREPROCESSING}
    )


def config_for(store, checkpoint, out, **settings) -> DistilConfig:
    return DistilConfig(**{"teacher": str(checkpoint), "frames": store.path, "out": out, **SHORT, **settings})


def rows_of(config: DistilConfig) -> list[dict[str, str]]:
    with (config.out.with_suffix(".pretraining") / "losses.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_student_learns_what_its_teacher_finds(square_store, checkpoint, tmp_path, one_thread):
    settings = {"filters": (16, 16), "units": 16, "max_steps": 120, "distractor": None}
    config = config_for(square_store, checkpoint, tmp_path / "student.safetensors", **settings)
    assert distil(config) == config.out
    rows = [float(row["errors"]) for row in rows_of(config) if row["split"] == "train"]
    assert np.mean(rows[-5:]) < 0.5 * np.mean(rows[:5])
    assert checkpoint_metadata(config.out)["game"] == "MovingSquare"
    student, teacher = (KeypointDetector(one, readout="peaks", device="cpu") for one in (config.out, checkpoint))
    assert isinstance(student.model, Distilled)
    frames = square_frames(6, seed=9)
    found, expected = (detector.layer_error_maps(frames)[0].ravel() for detector in (student, teacher))
    assert np.corrcoef(found, expected)[0, 1] > 0.5


def test_a_run_that_is_stopped_goes_on_as_if_it_had_not_been(square_store, checkpoint, tmp_path, one_thread):
    whole = distil(config_for(square_store, checkpoint, tmp_path / "whole.safetensors", max_steps=32))
    halves = config_for(square_store, checkpoint, tmp_path / "halves.safetensors", max_steps=32)
    run = Distillation(halves)
    run.config = config_for(square_store, checkpoint, halves.out, max_steps=32, max_minutes=1e-9)
    run.run()
    assert run.progress.step < 32
    distil(halves)
    expected, found = (load_checkpoint(path).state_dict() for path in (whole, halves.out))
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_targets_are_what_the_teacher_says_of_the_crops(square_store, checkpoint, tmp_path):
    run = Distillation(config_for(square_store, checkpoint, tmp_path / "student.safetensors", bars_every=2))
    stage = run.stages[0].make()
    indices = np.array([0, 5, 20, 31])
    images, targets = stage.inputs("train", indices, (0, 1))
    assert images.shape == (4, 3, 2 * CROP, 2 * CROP)
    # Frames with bars come last.
    violet = (images == torch.tensor(BAR_COLOR).view(1, 3, 1, 1) / 255).all(dim=1)
    assert not violet[:2].any()
    teacher = KeypointDetector(str(checkpoint), readout="peaks", device="cpu", precision="float32")
    network, frames = teacher.network, run.reader.frames("train", stage.order["train"][indices])
    with torch.no_grad():
        maps = network.feature_maps(frames)
        errors = network.relative_errors((0, 1), frames, maps)
    _, _, places, _ = stage.targets["train"]
    chosen = np.random.default_rng((0, 1)).integers(PLACES, size=4)
    corners = crop_corners(places[indices, chosen])
    for layer, found in enumerate(targets.errors):
        scale = 2**layer
        for row, (top, left) in enumerate(corners // scale):
            expected = errors[layer][row, top : top + CROP // scale, left : left + CROP // scale]
            assert torch.allclose(found[row], expected, rtol=2e-3, atol=1e-6)
        assert torch.allclose(targets.scales[layer], errors[layer].amax(dim=(1, 2)), rtol=2e-3)
    features = network.features_at(torch.from_numpy(places[indices]), maps[-1])
    assert torch.allclose(targets.features, features, rtol=2e-3, atol=1e-4)
    assert targets.seen[np.arange(4), chosen].all()
    assert not targets.seen.all()
    # The student's own crops see the same as its whole frames do wherever they are known.
    with torch.no_grad():
        whole = run.model.trunk(torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255)[-1].permute(0, 2, 3, 1)
        cut = run.model.trunk(images)[-1].permute(0, 2, 3, 1)
    known = targets.known.bool()
    assert torch.allclose(cut[known], torch.from_numpy(cropped(whole.numpy(), corners, CROP))[known], atol=1e-5)


def test_crops_lie_inside_and_windows_are_the_keypoints():
    places = np.array([[0.0, 0.0], [-1.0, 1.0], [0.3, -0.7]], np.float32)
    corners = crop_corners(places)
    assert corners.tolist() == [[10, 10], [0, 22], [16, 0]]
    both = np.stack([places, places[[1, 0, 2]]], axis=1)
    windows, inside = crop_windows(both, corners, 0.1)
    np.testing.assert_allclose(windows[:, 0].sum(axis=(1, 2)), 1)
    whole = gaussian_windows(torch.from_numpy(places)[None], 42, 0.1)[0].numpy()
    expected = cropped(whole, corners, CROP)
    np.testing.assert_allclose(windows[:, 0], expected / expected.sum(axis=(1, 2), keepdims=True), atol=1e-5)
    np.testing.assert_allclose(inside[:, 0], expected.sum(axis=(1, 2)) / whole.sum(axis=(1, 2)), rtol=1e-5)
    assert inside[:, 0].min() > 0.99
    assert inside[:2, 1].max() < 0.1
    known = known_cells(corners, 2)
    assert known[0].sum() == 16 * 16
    assert known[1].sum() == 18 * 18
    assert known[1, 0, -1] == 1
    assert known[1, 0, 0] == 0
    assert known[2].sum() == 16 * 18


def test_a_reader_selects_evenly_and_draws_bars_on_some(square_store):
    reader = FrameReader(square_store, torch.device("cpu"), "both", bars_every=3, most=8)
    assert reader.size("train") == 8
    assert reader.size("valid") == 8
    frames = reader.frames("train", np.arange(8))
    barred = (frames == np.array(BAR_COLOR)).all(axis=-1).any(axis=(1, 2))
    assert barred.tolist() == [True, False, False, True, False, False, True, False]
    assert reader.has_bars(np.arange(8)).tolist() == barred.tolist()
    np.testing.assert_array_equal(frames[1], square_store.splits["train"][7])  # the middle of the second eighth of 40
    with pytest.raises(ValueError, match="a selection of frames has no episodes"):
        reader.episode_bounds("train", np.arange(2))


def test_a_student_of_the_package_names_its_own_teacher(square_store, tmp_path):
    message = (
        "^mspacman holds a Distilled; only a PermaKey can be distilled, such as its own teacher, mspacman-teacher$"
    )
    with pytest.raises(CheckpointError, match=message):
        distil(config_for(square_store, "mspacman", tmp_path / "student.safetensors"))


def test_what_cannot_be_distilled(square_store, checkpoint, tmp_path):
    transporter = save_checkpoint(Transporter(), tmp_path / "transporter.safetensors")
    with pytest.raises(CheckpointError, match="holds a Transporter; only a PermaKey can be distilled"):
        distil(config_for(square_store, transporter, tmp_path / "student.safetensors"))
    config = config_for(square_store, checkpoint, tmp_path / "student.safetensors")
    distil(config)
    with pytest.raises(StateError, match="belongs to a run with bars_every 4, not 2"):
        distil(config_for(square_store, checkpoint, config.out, bars_every=2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bars_every": 0}, "bars_every must be at least 1"),
        ({"most_frames": 31}, "most_frames must be at least 32"),
        ({"distractor": None, "bars_every": 2}, "bars_every is only read where"),
        ({"filters": (8,)}, "filters must be two"),
        ({"out": Path("student.pt")}, "out must name a .safetensors file"),
    ],
)
def test_settings_that_make_no_run(square_store, checkpoint, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        config_for(square_store, checkpoint, **{"out": tmp_path / "student.safetensors", **settings})


def test_the_command_names_what_it_wrote_and_what_comes_next(square_store, checkpoint, tmp_path, capsys):
    out = tmp_path / "student.safetensors"
    flags = [
        part for name, value in SHORT.items() if name != "filters" for part in (f"--{name.replace('_', '-')}", value)
    ]
    main(["distil", *map(str, [checkpoint, "--frames", square_store.path, "--out", out, *flags, "--filters", 8, 8])])
    said = capsys.readouterr().out
    assert f"{out}: distilled model" in said
    assert f"next: sb3-permakey show --checkpoint {out}" in said
    assert load_checkpoint(out).config.filters == (8, 8)
