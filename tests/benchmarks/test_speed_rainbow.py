import json
from pathlib import Path

import pytest

from benchmarks.harness.markdown_blocks import renewed
from benchmarks.speed import rainbow as rainbow_speed
from benchmarks.speed.rainbow import PARTS, measure, table

ROOT = Path(__file__).parents[2]


def test_parts_of_a_step(monkeypatch, keep_threads):
    monkeypatch.setattr(rainbow_speed, "WARM_UP_STEPS", 40)
    monkeypatch.setattr(rainbow_speed, "PARTS", {"emulator": 4, "detector": 2, "acting": 1, "update": 1})
    row = measure("MsPacman", turns=2)
    assert row["keypoints"] == 7
    assert {name: len(values) for name, values in row["ms_of_each_turn"].items()} == dict.fromkeys(PARTS, 2)
    parts = row["ms"]
    assert row["ms_of_a_step"] == pytest.approx(sum(parts.values()) + parts["update"])


def test_table_says_how_long_a_training_takes():
    ms = {"emulator": 0.5, "detector": 2.0, "acting": 0.5, "update": 3.0}
    lines = table({"MsPacman": {"keypoints": 7, "ms": ms, "ms_of_a_step": 9.0}})
    assert lines[2] == "| MsPacman | 7 | 0.5 | 2.0 | 0.5 | 3.0 | 9.0 | 15 |"


def test_the_guides_table_is_the_committed_one():
    games = json.loads((ROOT / "benchmarks/results/rainbow_speed.json").read_text())["games"]
    guide = ROOT / "docs/rainbow.md"
    assert renewed(guide, **{"rainbow-speed": "\n".join(table(games))}) == guide.read_text()
