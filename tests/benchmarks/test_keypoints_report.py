import json

import pytest

from benchmarks.keypoints import run as keypoints
from benchmarks.keypoints import stability as keypoints_stability
from benchmarks.keypoints.report import (
    ReportConfig,
    cell,
    page_tables,
    read_results,
    read_stability,
    readme_tables,
    report,
    write_report,
)
from benchmarks.keypoints.run import KeypointsBenchmark as Benchmark
from benchmarks.keypoints.run import Run, do_run, is_left, pretrain_config, shipped_name, training_command
from sb3_permakey.keypoints import PermaKeyConfig, ReadoutConfig
from sb3_permakey.pretraining import PretrainConfig, StrongPretrainConfig


def figure(value, low=None, high=None):
    return {"value": value, "low": value if low is None else low, "high": value if high is None else high}


def result(seed: int, f1: float, **changes):
    names = ("precision", "recall", "f1", "f1_without_displays", "coverage", "tracking", "distractor_rate")
    scores = {name: figure(f1) for name in names}
    points = {"keypoints": scores, "random": {name: figure(0.1) for name in names}}
    points["grid"] = {name: figure(0.2) for name in names}
    return {
        "game": "Seaquest",
        "method": "permakey",
        "noise": "clean",
        "seed": seed,
        "scores": {"pointnet": points, "peaks": points},
        "training": {"minutes": 3.0, "threads": 1, "command": "sb3-permakey pretrain"},
        "machine": {"cpu": "a processor"},
        "bars_area_share": 0.12,
        **changes,
    }


def fish(recall):
    """Scores of fish alone."""
    return {"Fish": {"recall": figure(recall), "tracking": figure(None), "motion_error_px": figure(recall + 1)}}


def test_cells_show_the_interval_of_one_seed_and_the_range_of_several():
    assert cell([figure(0.5, 0.4, 0.6)]) == "0.50 [0.40, 0.60]"
    assert cell([figure(0.5, 0.0, 1.0), figure(0.7, 0.0, 1.0)]) == "0.60 [0.50, 0.70]"
    assert cell([figure(None)]) == "-"


def test_report_has_a_row_for_each_kind_of_points(tmp_path):
    for seed, f1 in enumerate((0.5, 0.7)):
        (tmp_path / f"{seed}.json").write_text(json.dumps(result(seed, f1)))
    (tmp_path / "noisy.json").write_text(json.dumps(result(0, 0.4, noise="both")))
    lines = report(read_results(tmp_path), []).splitlines()
    (paper,) = [line for line in lines if "PermaKey, PointNet" in line and "0.60 [0.50, 0.70]" in line]
    assert paper.startswith("| Seaquest (K = 10) |")
    assert "| 2 |" in paper
    assert len([line for line in lines if "fixed grid" in line and "0.20" in line]) == 2
    assert "The bars cover 0.120 of a frame." in lines
    tables = readme_tables(read_results(tmp_path))
    assert tables["keypoints"].splitlines()[2:] == ["| Seaquest | 0.60 | - | 0.60 | - | 0.20 | 0.10 |"]
    assert page_tables(read_results(tmp_path))["noisy"].splitlines()[2:] == [
        "| Seaquest | 0.40 (40%) | - | 0.40 (40%) | - | 0.20 (20%) | 0.10 (10%) |"
    ]


def test_report_tells_each_kind_of_objects(tmp_path):
    for seed, recall in enumerate((0.5, 0.7)):
        categories = {"pointnet": fish(recall), "peaks": fish(0.9), "grid": fish(0.2), "random": fish(0.1)}
        told = result(seed, 0.5, categories=categories, objects_per_frame={"Fish": 2.25})
        (tmp_path / f"{seed}.json").write_text(json.dumps(told))
    other = {"pointnet": fish(0.3), "grid": fish(0.2), "random": fish(0.1)}
    told = result(0, 0.4, method="transporter", categories=other, objects_per_frame={"Fish": 2.25})
    (tmp_path / "transporter.json").write_text(json.dumps(told))
    (tmp_path / "before.json").write_text(json.dumps(result(2, 0.4)))
    row = "| Seaquest | Fish | 2.25 | 0.90 (1.90) | - (-) | - (-) | 0.60 (1.60) | 0.30 (1.30) | 0.20 | 0.10 |"
    assert row in report(read_results(tmp_path), []).splitlines()


def test_stability_over_the_seeds_whose_checkpoints_are_left(tmp_path, monkeypatch):
    benchmark, scored = Benchmark(folder=tmp_path / "runs", results=tmp_path), []
    runs = [Run("Seaquest", "permakey", "clean", seed) for seed in range(3)]

    def fake_score(config):
        scored.append(config.checkpoints)
        apart = 4.0 if config.readout == ReadoutConfig("pointnet") else 2.0
        return {"scores": {"keypoints": {"stability": figure(apart)}, "random": {"stability": figure(20.0)}}}

    monkeypatch.setattr(keypoints_stability, "score", fake_score)
    # The package has seed 0 alone.
    assert keypoints_stability.measure(runs, benchmark) is None
    second = pretrain_config(runs[2], benchmark).out
    second.parent.mkdir()
    second.touch()
    line = keypoints_stability.measure(runs, benchmark)
    assert line.startswith("seaquest-permakey-clean: {'pointnet': 4.0, 'peaks': 2.0")
    assert line.endswith("px between seeds 0, 2")
    assert scored == [("seaquest-teacher", str(second))] * 4
    # Not again for as many, but for more.
    assert keypoints_stability.measure(runs, benchmark) is None
    pretrain_config(runs[1], benchmark).out.touch()
    assert keypoints_stability.measure(runs, benchmark).endswith("px between seeds 0, 1, 2")
    (tmp_path / "0.json").write_text(json.dumps(result(0, 0.5)))
    lines = report(read_results(tmp_path), read_stability(tmp_path)).splitlines()
    assert "| Seaquest (K = 10) | PermaKey, PointNet | 0, 1, 2 | 4.00 [4.00, 4.00] | 20.00 [20.00, 20.00] |" in lines


def test_tables_of_other_pages_are_renewed_between_their_marks(tmp_path):
    results, readme, page = tmp_path / "results", tmp_path / "README.md", tmp_path / "page.md"
    results.mkdir()
    (results / "0.json").write_text(json.dumps(result(0, 0.5)))
    config = ReportConfig(results, tmp_path / "keypoints.md", readme, page)
    readme.write_text("No marks.\n")
    page.write_text("No marks.\n")
    with pytest.raises(ValueError, match="README.md has no lines <!-- keypoints --> and, below it"):
        write_report(config)
    assert not config.out.exists()
    readme.write_text("Before.\n<!-- keypoints -->\nold\n<!-- /keypoints -->\nAfter.\n")
    with pytest.raises(ValueError, match="page.md has no lines <!-- noisy --> and, below it"):
        write_report(config)
    assert "old" in readme.read_text()
    page.write_text("<!-- noisy -->\nold\n<!-- /noisy -->\n")
    write_report(config)
    assert "| Seaquest | 0.50 | - | 0.50 | - | 0.20 | 0.10 |\n<!-- /keypoints -->\nAfter.\n" in readme.read_text()
    assert "old" not in readme.read_text() + page.read_text()
    assert "| Seaquest (K = 10) |" in config.out.read_text()


@pytest.mark.parametrize("method", ["permakey", "transporter"])
def test_training_command_names_every_setting(method, tmp_path):
    run = Run("Seaquest", method, "both", 2)
    config = pretrain_config(run, Benchmark(folder=tmp_path))
    command = training_command(run, config)
    assert f"--method {method}" in command
    assert "--seed 2" in command
    assert "--distractor both" in command
    assert "--num-keypoints 10" in command
    assert "--softmax plane" in command
    assert ("--map-power" in command) == (method == "permakey")


def test_the_strong_preset_trains_what_was_measured(tmp_path):
    preset = StrongPretrainConfig(out=tmp_path / "x.safetensors", frames=tmp_path)
    assert preset.model == PermaKeyConfig(**keypoints.MODELS["permakey"])
    assert {name: getattr(preset, name) for name in keypoints.RECIPES["permakey"]} == keypoints.RECIPES["permakey"]
    assert preset.collect_frames == Benchmark().frames


def test_the_class_of_a_preset_decides(tmp_path):
    with pytest.raises(ValueError, match="the settings of the preset 'strong' are a StrongPretrainConfig"):
        PretrainConfig(out=tmp_path / "x.safetensors", frames=tmp_path, preset="strong")


def test_what_a_result_lacks_is_scored_of_the_checkpoint_that_is_left(tmp_path, monkeypatch):
    benchmark, scored = Benchmark(folder=tmp_path / "runs", results=tmp_path), []
    out = tmp_path / "seaquest-permakey-clean-0.json"
    out.write_text(json.dumps(result(0, 0.5)))

    def fake_score(config):
        scored.append(config)
        return {
            "scores": result(0, 0.7)["scores"]["peaks"],
            "categories": {points: fish(0.7) for points in ("keypoints", "random", "grid")},
            "objects_per_frame": {"Fish": 2.0},
            "frames": 3,
            "bars_area_share": None,
        }

    monkeypatch.setattr(keypoints, "score", fake_score)
    monkeypatch.setattr(keypoints, "pretrain", None)
    run = Run("Seaquest", "permakey", "clean", 0)
    assert is_left(run, benchmark)
    assert "'contrast': 0.7" in do_run(run, benchmark)
    # Two readings lack their categories alone, and keep the scores that they have.
    assert [config.readout for config in scored] == [
        ReadoutConfig("pointnet"),
        ReadoutConfig("peaks"),
        ReadoutConfig("peaks", surround_px=18.0),
        ReadoutConfig("peaks", surround_px=18.0, centroid_px=10.0),
    ]
    assert {config.checkpoints for config in scored} == {("seaquest-teacher",)}
    written = json.loads(out.read_text())
    assert written["scores"]["peaks"] == result(0, 0.5)["scores"]["peaks"]
    assert set(written["categories"]) == {"pointnet", "peaks", "contrast", "steady", "random", "grid"}
    assert set(written["scored_later"]) == {"pointnet, categories", "peaks, categories", "contrast", "steady"}
    assert written["scored_later"]["contrast"]["checkpoint"] == "seaquest-teacher"
    assert not is_left(run, benchmark)
    # Of other seeds the package has no checkpoint.
    (tmp_path / "seaquest-permakey-clean-1.json").write_text(json.dumps(result(1, 0.5)))
    assert not is_left(Run("Seaquest", "permakey", "clean", 1), benchmark)
    assert is_left(Run("Seaquest", "permakey", "clean", 2), benchmark)


def test_shipped_names():
    assert shipped_name("Seaquest", "permakey", "clean") == "seaquest-teacher"
    assert shipped_name("Seaquest", "distilled", "both") == "seaquest-noisy"
    assert shipped_name("Seaquest", "transporter", "both") == "seaquest-noisy-transporter"
