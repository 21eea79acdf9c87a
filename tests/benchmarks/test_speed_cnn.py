import json

import pytest

from benchmarks.speed import cnn


def test_ratios_are_medians_of_turns_by_hand():
    took = {
        "written out": {"update": [400.0, 800.0, 400.0], "acting": [5.0, 5.0, 5.0]},
        "quick": {"update": [100.0, 400.0, 80.0], "acting": [3.0, 4.0, 5.0]},
    }
    found = cnn.summary({"play": [10.0, 8.0, 70.0], "variants": took})
    # Steps of 10 ms of play, acting and a quarter of an update: 115, 215 and 115; 38, 114 and 35.
    assert found["written out"] == {
        "update": 400,
        "acting": 5,
        "step": 115,
        "steps_per_s": pytest.approx(1000 / 115),
        "update_ratio": 1,
        "step_ratio": 1,
    }
    assert found["quick"]["update_ratio"] == 4
    assert found["quick"]["step"] == 38
    assert found["quick"]["step_ratio"] == pytest.approx(115 / 38)


def test_a_tiny_run(tmp_path, keep_threads):
    cnn.main(cnn.CnnSpeed(filters=2, steps=32, turns=2, out=tmp_path / "cnn_speed.json"))
    result = json.loads((tmp_path / "cnn_speed.json").read_text())
    assert result["threads"] == 1
    assert len(result["ms"]["play"]) == 32
    text = (tmp_path / "cnn_speed.md").read_text()
    for name in cnn.VARIANTS:
        assert len(result["ms"]["variants"][name]["update"]) == 2
        [row] = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
        assert all(float(cell) > 0 for cell in row.strip("| ").split(" | ")[1:])
    [first] = [line for line in text.splitlines() if line.startswith("| written out |")]
    assert first.endswith("| 1.00 | 1.00 |")
