import json
from pathlib import Path

from benchmarks.harness.markdown_blocks import renewed
from benchmarks.speed.memory import CELLS, MemorySpeed, main, table

ROOT = Path(__file__).parents[2]


def test_all_cells_are_measured_in_each_turn(tmp_path, keep_threads):
    main(MemorySpeed(steps=(2, 5), turns=3, out=tmp_path / "speed.json"))
    windows = json.loads((tmp_path / "speed.json").read_text())["windows"]
    assert list(windows) == ["2", "5"]
    for cells in windows.values():
        assert {name: len(cell["ms_of_each_turn"]) for name, cell in cells.items()} == dict.fromkeys(CELLS, 3)
        assert cells["lstm"]["ratio"] == 1
        for cell in cells.values():
            assert sorted(cell["ms_of_each_turn"])[1] == cell["ms"] > 0


def test_table_has_times_and_ratios():
    cells = {name: {"ms": 2.0, "ratio": ratio} for name, ratio in zip(CELLS, (1.0, 1.25, 0.5), strict=True)}
    assert table({"8": cells})[-1] == "| 8 | 2.0 (1.00) | 2.0 (1.25) | 2.0 (0.50) |"


def test_the_guides_table_is_the_committed_one():
    windows = json.loads((ROOT / "benchmarks/results/memory_speed.json").read_text())["windows"]
    assert list(windows) == ["8", "80", "400"]
    guide = ROOT / "docs/recurrent_agents.md"
    assert renewed(guide, **{"memory-speed": "\n".join(table(windows))}) == guide.read_text()
