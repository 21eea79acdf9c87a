import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from objects_by_hand import objects
from PIL import Image

from sb3_permakey.envs.distractors import BarPlaces
from sb3_permakey.files import InUseError, WriteError, locked_file
from sb3_permakey.keypoints import PermaKey, PermaKeyConfig, save_checkpoint
from sb3_permakey.keypoints.peaks import match_keypoints
from sb3_permakey.scores import (
    LabelledFrames,
    ScoreConfig,
    keypoint_score_table,
    score,
    scoring,
)


@pytest.fixture
def played(monkeypatch):
    """Labelled frames that need no game; how often they were made."""
    calls = []

    def make(game, *, episodes, frames, spacing, seed, distractor, policy, agent_checkpoint, epsilon):
        calls.append(game)
        random = np.random.default_rng(seed)
        pair = (objects((10, 10, 30, 30), (60, 0, 84, 84), displays=(1,)), objects((10, 12, 30, 32)))
        images = random.integers(0, 255, (6, 2, 84, 84, 3), dtype=np.uint8)
        bars = BarPlaces(np.full(6, 3), np.full(6, -1)) if distractor else None
        return LabelledFrames(game, images, [pair] * 6, np.array([0, 0, 1, 1, 2, 2]), bars)

    monkeypatch.setattr(scoring, "labelled_frames", make)
    return calls


def test_score_of_a_checkpoint(checkpoint, played, tmp_path):
    config = ScoreConfig((str(checkpoint),), "Pong", out=tmp_path / "scores.json", picture=tmp_path / "scores.png")
    result = score(config)
    assert json.loads(config.out.read_text()) == result
    assert result["settings"]["game"] == "ALE/Pong-v5"
    assert result["settings"]["num_keypoints"] == 4
    assert (result["frames"], result["episodes"]) == (6, 3)
    assert result["objects_per_frame"] == {"a": 1, "b": 1}
    assert result["provenance"]["versions"]["numpy"] == np.__version__
    for method in ("keypoints", "random", "grid"):
        for name, figure in result["scores"][method].items():
            if name == "distractor_rate":
                assert figure == {"value": None, "low": None, "high": None}
            elif name != "tracking":
                assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1
    # The grid of 4 has two points on the display, one of two on the object, in every frame.
    assert result["scores"]["grid"]["precision"] == {"value": 0.75, "low": 0.75, "high": 0.75}
    assert result["scores"]["grid"]["precision_without_displays"]["value"] == 0.5
    assert Image.open(config.picture).width > 6 * 252
    table = keypoint_score_table(result)
    assert "0.75 [0.75, 0.75]" in table
    assert "stability" not in table
    # The grid has a point on "a", which moves by 2 px, and of two on the display one is its own.
    assert result["categories"]["grid"]["a"]["motion_error_px"]["value"] == pytest.approx(2)
    assert result["categories"]["grid"]["b"]["recall"]["value"] == 1
    recall = result["categories"]["keypoints"]["a"]["recall"]
    (row,) = [line for line in table.splitlines() if line.startswith("a, 1.0 ")]
    assert f"{recall['value']:.2f} [{recall['low']:.2f}, {recall['high']:.2f}]" in row

    assert score(config) == result
    assert played == ["Pong"]
    with pytest.raises(ValueError, match="holds other scores; give another --out"):
        score(ScoreConfig(config.checkpoints, "Pong", out=config.out, margin_px=4))
    save_checkpoint(PermaKey(PermaKeyConfig(num_keypoints=4)), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="holds other scores"):
        score(ScoreConfig((str(tmp_path / "model.safetensors"),), "Pong", out=config.out))


@pytest.mark.parametrize("output", ["out", "picture"])
def test_outputs_are_tried_before_anybody_plays(checkpoint, played, tmp_path, output):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(WriteError, match="could not write .*file/x.png: Not a directory"):
        score(ScoreConfig((str(checkpoint),), "Pong", **{output: tmp_path / "file" / "x.png"}))
    assert played == []


def test_a_second_run_for_the_same_scores_is_refused(checkpoint, played, tmp_path):
    config = ScoreConfig((str(checkpoint),), "Pong", out=tmp_path / "scores.json")
    with locked_file(config.out), pytest.raises(InUseError, match="another run is writing .*scores.json"):
        score(config)
    assert played == []
    config.out.write_text("{")
    with pytest.raises(ValueError, match=r"scores.json is not a whole JSON file"):
        score(config)


def test_a_checkpoint_of_another_game_deserves_a_warning(checkpoint, played, tmp_path):
    own = save_checkpoint(PermaKey(), tmp_path / "own.safetensors", metadata={"game": "MsPacman"})
    for name, game in (("seaquest", "Seaquest"), (str(own), "MsPacman")):
        with pytest.warns(UserWarning, match=f"{name} was trained on {game}: its keypoints may miss what Pong shows"):
            score(ScoreConfig((name,), "Pong"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        score(ScoreConfig((str(checkpoint),), "Pong"))  # it says nothing of its game
        score(ScoreConfig(("seaquest",), "ALE/Seaquest-v5"))


def test_several_checkpoints_are_pooled_and_compared(checkpoint, played, tmp_path):
    pytest.importorskip("scipy")
    other = save_checkpoint(PermaKey(PermaKeyConfig(num_keypoints=4)), tmp_path / "other.safetensors")
    config = ScoreConfig((str(checkpoint), str(other)), "Pong", distractor="horizontal")
    result = score(config)
    alone = [entry["scores"]["precision"]["value"] for entry in result["checkpoints"]]
    assert result["scores"]["keypoints"]["precision"]["value"] == pytest.approx(np.mean(alone))
    assert result["scores"]["keypoints"]["stability"]["value"] > 0
    assert "stability" not in result["scores"]["grid"]
    assert result["bars_area_share"] == pytest.approx(5 / 84)
    table = keypoint_score_table(result)
    assert "stability (px)" in table
    assert f"{other}: F1" in table
    another = save_checkpoint(PermaKey(PermaKeyConfig(num_keypoints=5)), tmp_path / "another.safetensors")
    with pytest.raises(ValueError, match=r"must have the same number of keypoints .* not \[4, 5\]"):
        score(ScoreConfig((str(checkpoint), str(another)), "Pong"))


def test_peaks_keep_their_identities_within_a_pair(checkpoint):
    pytest.importorskip("scipy")
    detector = scoring.KeypointDetector(checkpoint, readout="peaks")
    frames = np.random.default_rng(0).integers(0, 255, (3, 2, 84, 84, 3), dtype=np.uint8)
    first, second = scoring.detect_pairs(detector, frames)
    detected = detector.detect(frames[:, 1]).centers
    assert (first == detector.detect(frames[:, 0]).centers).all()
    for before, after, unordered in zip(first, second, detected, strict=True):
        assert sorted(map(tuple, after)) == sorted(map(tuple, unordered))
        assert match_keypoints(before, after).tolist() == [0, 1, 2, 3]


def test_checkpoints_that_would_be_read_in_different_ways_need_a_readout():
    with pytest.raises(ValueError, match="read in the same way, not by peaks and pointnet: name a readout$"):
        score(ScoreConfig(("mspacman", "mspacman-teacher"), "MsPacman", episodes=1, frames=1))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"checkpoints": ()}, "name at least one checkpoint"),
        ({"episodes": 0}, "episodes must be from 1 to 1000, not 0"),
        ({"episodes": 1001}, "episodes must be from 1 to 1000, not 1001"),
        ({"spacing": 0}, "spacing must be at least 1"),
        ({"margin_px": -1.0}, "margin_px must be at least 0"),
        ({"seed": -1}, "seed must be from 0 to"),
        ({"seed": 2_144_483}, "seed must be from 0 to 2144482, not 2144483"),
        ({"picture": Path("k.foo")}, "picture must name a .png file, not k.foo"),
        ({"epsilon": 0.2}, "epsilon is of agents, but none plays"),
    ],
)
def test_impossible_settings(settings, words):
    with pytest.raises(ValueError, match=words):
        ScoreConfig(**{"checkpoints": ("x",), "game": "Pong", **settings})


def test_without_ocatari(checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "ocatari", None)
    for name in [name for name in sys.modules if name.startswith("ocatari.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError, match=r'pip install -e ".*\[scores\]"'):
        score(ScoreConfig((str(checkpoint),), "Pong"))
