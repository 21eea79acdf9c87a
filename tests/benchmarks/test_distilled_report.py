import json

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib")
from conftest import square_frames

from benchmarks.distilled import run as benchmark
from benchmarks.distilled.report import ReportConfig, rows, value, write_report
from benchmarks.distilled.run import DistilledBenchmark, Run, distil_command, distil_config, explained_variance
from sb3_permakey.cli import COMMANDS
from sb3_permakey.keypoints import KeypointDetector, Keypoints


def figure(number):
    return {"value": number, "low": number, "high": number}


def scores(f1, *errors):
    names = ("f1", "precision", "recall", "tracking")
    kinds = {f"kind {index}": {"motion_error_px": figure(error)} for index, error in enumerate(errors)}
    return {"all": {name: figure(f1) for name in names}, "kinds": kinds}


RESULT = {
    "game": "MsPacman",
    "noise": "clean",
    "seed": 0,
    "teacher": "mspacman-teacher",
    "num_keypoints": 7,
    "training": {"command": "sb3-permakey distil mspacman-teacher", "minutes": 4.2, "threads": 1, "steps": 2000},
    "scores": {
        "clean": {
            "teacher": {"peaks": scores(0.8, 1.0, None, 2.0), "contrast": scores(0.7)},
            "student": {"peaks": scores(0.75, 1.5, None, 1.5), "contrast": scores(0.71)},
        }
    },
    "explained_variance": {"clean": 0.934},
    "machine": {"cpu": "a processor"},
}


def test_rows_set_students_beside_their_teachers(tmp_path):
    assert value(RESULT["scores"]["clean"]["teacher"]["peaks"], "motion_error_px") == 1.5
    peaks, contrast = rows(RESULT)
    assert peaks == ["mspacman", "clean", "peaks", *["0.80 / 0.75"] * 4, "1.50 / 1.50", "0.93"]
    assert contrast[-2:] == ["- / -", ""]
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a.json").write_text(json.dumps(RESULT))
    speed = {
        "game": "mspacman",
        "detector": "distilled, peaks",
        "precision": "float32",
        "batch_size": 32,
        "frames_per_s": 800.0,
        "best_frames_per_s": 1000.0,
        "arithmetic_ms": 0.25,
        "traffic_ms": 0.125,
    }
    found = {"rows": [speed], "threads": 1, "machine": {"cpu": "a processor"}, "command": "python -m benchmarks.speed"}
    (tmp_path / "speed.json").write_text(json.dumps(found))
    write_report(ReportConfig(tmp_path / "results", tmp_path / "a.md", tmp_path / "speed.json", tmp_path / "none"))
    text = (tmp_path / "a.md").read_text()
    assert "| mspacman | clean | peaks | 0.80 / 0.75 |" in text
    assert "| mspacman | distilled, peaks, float32 | 32 | 1.25 | 1.00 | 0.25 | 0.12 |" in text


def test_the_command_line_makes_the_same_student():
    run = Run("MsPacman", "both", 3)
    config = distil_config(run, DistilledBenchmark(max_steps=50))
    assert (config.teacher, config.bars_every, config.seed) == ("mspacman-noisy-teacher", 1, 3)
    words, filters = distil_command(config).split(" --filters ")
    assert tuple(map(int, filters.split())) == config.filters
    words = words.split()
    assert words[:3] == ["sb3-permakey", "distil", "mspacman-noisy-teacher"]
    flags = dict(zip(words[3::2], words[4::2], strict=True))
    kind, _ = COMMANDS["distil"]
    for flag, text in flags.items():
        assert str(getattr(config, flag[2:].replace("-", "_"))) == text
    assert kind(config.teacher, config.frames, config.out, bars_every=1, max_steps=50, seed=3) == config


@pytest.mark.parametrize(
    ("found", "sizes", "written"),
    [
        ([0.79], ["small"], 0.79),  # .01 less than its teacher
        ([0.7, 0.82], ["small", "large"], 0.82),
        ([0.7, 0.75, 0.76], ["small", "large", "long"], 0.76),
        ([0.7, 0.75, 0.7], ["small", "large", "long"], 0.75),
        ([0.7, 0.6, 0.6], ["small", "large", "long"], 0.7),
        ([None], ["small"], None),  # a game that nobody scores
    ],
)
def test_a_student_that_misses_too_much_gets_larger_ones_beside_it(tmp_path, monkeypatch, found, sizes, written):
    made = []

    def student_of(run, config, settings):
        made.append({3_000: "small", 5_000: "large", 12_000: "long"}[config.max_steps])
        assert config.filters == ((16, 32, 32) if made[-1] == "small" else (24, 48, 48))
        config.out.parent.mkdir(exist_ok=True)
        config.out.write_text(made[-1])
        f1 = found[len(made) - 1]
        students = {"clean": {who: {"peaks": scores(value)} for who, value in (("teacher", 0.8), ("student", f1))}}
        return {"noise": "clean", "scores": students if f1 else {}, "f1": f1}

    monkeypatch.setattr(benchmark, "student_of", student_of)
    settings = DistilledBenchmark(folder=tmp_path / "students", results=tmp_path / "results")
    benchmark.do_run(Run("Pong", "clean", 0, trained=tmp_path / "teacher.safetensors"), settings)
    assert made == sizes
    assert json.loads((tmp_path / "results" / "pong-clean-0.json").read_text())["f1"] == written
    kept = sizes[found.index(written)]
    assert (tmp_path / "students" / "pong-clean-0.safetensors").read_text() == kept


class Fixed:
    """Stands in for a detector: features by the frames' first pixel."""

    def __init__(self, error):
        self.error, self.device, self.network = error, torch.device("cpu"), self

    def detect(self, frames):
        values = np.repeat(frames[:, 0, 0, :1, None].astype(np.float32), 2, axis=1)
        return Keypoints(np.zeros((len(frames), 2, 2), np.float32), values)

    def features(self, frames):
        return torch.from_numpy(self.detect(frames).features)

    def features_at(self, centers, features):
        return features + self.error


def test_explained_variance_by_hand():
    frames = np.zeros((3, 84, 84, 3), np.uint8)
    frames[:, 0, 0, 0] = 0, 3, 6  # mean 3, squares 9, 0, 9, of two keypoints each
    assert explained_variance(Fixed(0), Fixed(0), frames) == 1
    assert explained_variance(Fixed(0), Fixed(2), frames) == pytest.approx(1 - 2 * 3 * 4 / (2 * 18))


def test_a_student_explains_its_own_features(checkpoint):
    detector = KeypointDetector(checkpoint, readout="peaks", device="cpu")
    assert explained_variance(detector, detector, square_frames(30)) == pytest.approx(1, abs=1e-5)


def test_runs_that_are_done_or_have_no_teacher_are_left_out(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(benchmark, "collect", lambda config: None)
    monkeypatch.setattr(benchmark, "do_run", lambda run, benchmark: done.append(run.name) or run.name)
    results = tmp_path / "distilled"
    results.mkdir()
    (results / "mspacman-clean-0.json").write_text(json.dumps(RESULT))
    benchmark.main(DistilledBenchmark(games=("MsPacman", "Frostbite"), results=results, folder=tmp_path))
    # The package has no teacher of Frostbite's noisy frames.
    assert done == ["mspacman-both-0", "frostbite-clean-0"]
    assert (tmp_path / "distilled.md").exists()
