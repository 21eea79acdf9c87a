"""A student goes into the package with the scores that its benchmark gave it."""

import json

import pytest

pytest.importorskip("matplotlib")
from benchmarks.distilled.run import READ
from benchmarks.release import run as release
from sb3_permakey.keypoints import (
    Distilled,
    DistilledConfig,
    load_checkpoint,
    model_fingerprint,
    save_checkpoint,
    shipped,
)

NAMES = ("precision", "recall", "f1", "coverage")


def scores(first):
    return {
        "all": {name: {"value": first + index / 10} for index, name in enumerate(NAMES)}
        | {"distractor_rate": {"value": None}}
    }


def test_a_finished_student_is_shipped_once(tmp_path, monkeypatch):
    folder = tmp_path / "package"
    monkeypatch.setattr(shipped, "FOLDER", folder)
    monkeypatch.setattr(release, "FOLDER", folder)
    model = Distilled(DistilledConfig(num_keypoints=3, filters=(4, 4), units=4))
    save_checkpoint(model, tmp_path / "students" / "mspacman-clean-0.safetensors")
    result = {
        "game": "MsPacman",
        "noise": "clean",
        "seed": 0,
        "teacher": "mspacman-teacher",
        "num_keypoints": 3,
        "commit": "0123456789ab",
        "training": {"command": "sb3-permakey distil mspacman-teacher", "minutes": 4.26},
        "scores": {"clean": {"student": {reading: scores(0.5) for reading in READ}}},
    }
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "mspacman-clean-0.json").write_text(json.dumps(result))
    config = release.ShipConfig(
        folder=tmp_path,
        results=tmp_path / "none",
        student_folder=tmp_path / "students",
        students=tmp_path / "results",
        docs=tmp_path / "checkpoints.md",
    )
    release.main(config)
    [one] = shipped.shipped_checkpoints()
    assert (one.name, one.method, one.noise, one.minutes) == ("mspacman", "distilled", None, 4.3)
    assert one.fingerprint == model_fingerprint(load_checkpoint("mspacman"))
    assert one.scores["peaks_f1"] == one.scores["contrast_f1"] == 0.7
    assert "f1" not in one.scores
    assert load_checkpoint("MsPacman").for_detection_only
    assert "| mspacman | 3 | - | - | - | - | 0.50 | 0.60 | 0.70 |" in (tmp_path / "checkpoints.md").read_text()
    (tmp_path / "students" / "mspacman-clean-0.safetensors").unlink()
    release.main(config)  # needs nothing of what is shipped


def test_a_student_of_a_teacher_that_stays_behind_is_shipped_with_what_builds_both(tmp_path, monkeypatch):
    for place in (shipped, release):
        monkeypatch.setattr(place, "FOLDER", tmp_path / "package")
    model = Distilled(DistilledConfig(num_keypoints=3, filters=(4, 4), units=4))
    result = {
        "game": "Pong",
        "noise": "clean",
        "teacher": "runs/keypoints/pong-permakey-clean-0.safetensors",
        "num_keypoints": 3,
        "commit": "0123456789ab",
        "training": {"command": "sb3-permakey distil runs/keypoints/pong.safetensors", "minutes": 4.26},
        "scores": {},
    }
    found = release.ship(result, save_checkpoint(model, tmp_path / "pong.safetensors"))
    assert (found.name, found.command) == ("pong", "python -m benchmarks.release.build --games Pong")
    assert release.missing_scores(found, result) == {}  # of a game that OCAtari does not know
