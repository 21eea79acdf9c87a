import json

import numpy as np
import pytest

from benchmarks.memory.report import (
    ReportConfig,
    cell,
    draw_curves,
    read_results,
    report,
    short_table,
    table,
    write_report,
)


def result(task, agent, seed, value, **changes):
    return {
        "task": task,
        "agent": agent,
        "seed": seed,
        "curve": {"steps": [10, 20], "mean_return": [100 * value, 200 * value], "success": [value / 2, value]},
        "test": {"mean_return": 400 * value, "success": value},
        "training": {"minutes": 2.0},
        "machine": {"cpu": "a processor"},
        "commit": "0123456789ab",
        **changes,
    }


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results" / "memory"
    folder.mkdir(parents=True)
    runs = [result("tmaze-10", "recurrent-dqn-zero", seed, value) for seed, value in ((1, 0.75), (0, 1.0))]
    runs += [result("cartpole", "dqn", 0, 0.25), result("tmaze-10", "dqn", 0, 0.5)]
    for index, run in enumerate(runs):
        (folder / f"{index}.json").write_text(json.dumps(run))
    return folder


def test_cells_show_the_mean_and_each_seed():
    assert cell([0.5, 1.0], 2) == "0.75 (0.50, 1.00)"
    assert cell([487.4], 0) == "487 (487)"
    assert cell([], 2) == "-"


def test_table_has_a_row_an_agent_with_its_seeds_in_order(results):
    lines = table(read_results(results))
    assert lines[0] == "| agent | cartpole, return | tmaze-10, success rate |"
    assert "| RecurrentDQN, zero | - | 0.88 (1.00, 0.75) |" in lines
    assert "| DQN | 100 (100) | 0.50 (0.50) |" in lines
    assert lines[-1] == "| the best without memory (by calculation) | - | 0.50 |"


def test_tasks_that_need_no_memory_have_a_table_of_their_own(results):
    (results / "4.json").write_text(json.dumps(result("cartpole-v1", "rainbow", 0, 1.0)))
    found = read_results(results)
    assert table(found)[0] == "| agent | cartpole, return | tmaze-10, success rate |"
    assert table(found, need_memory=False) == [
        "| agent | cartpole-v1, return |",
        "|---|---|",
        "| Rainbow | 400 (400) |",
    ]
    assert "| Rainbow | 400 (400) |" in report(found, "memory.png")


def test_short_table_has_cartpole_alone(results):
    lines = short_table(read_results(results))
    assert lines[0] == "| agent | return |"
    assert lines[2] == "| RecurrentDQN, stored + burn-in | - |"
    assert lines[-1] == "| DQN | 100 (100) |"


def test_curves_are_means_with_the_range_over_seeds(results):
    panel = next(panel for panel in draw_curves(read_results(results)).axes if panel.get_title() == "tmaze-10")
    curves = {line.get_label(): line for line in panel.get_lines()}
    assert curves["RecurrentDQN, zero"].get_xydata().tolist() == [[10, 0.4375], [20, 0.875]]
    band = np.unique(panel.collections[0].get_paths()[0].vertices[:, 1])
    assert band == pytest.approx([0.375, 0.5, 0.75, 1.0])


def test_report_is_written_with_the_address_of_the_picture(results, tmp_path):
    config = ReportConfig(results, results.with_suffix(".md"), tmp_path / "docs" / "memory.png")
    write_report(config)
    text = config.table.read_text()
    assert "](../docs/memory.png)" in text
    assert "4 runs of 2.0 to 2.0 minutes, one thread of a processor." in text
    assert config.picture.stat().st_size > 1000
    assert "no clean commit" not in text


def test_every_machine_is_named(results):
    (results / "4.json").write_text(json.dumps(result("tmaze-10", "dqn", 1, 0.5, machine={"cpu": "another"})))
    assert "5 runs of 2.0 to 2.0 minutes, one thread of a processor or another." in report(
        read_results(results), "memory.png"
    )


def test_runs_of_no_clean_commit_are_named(results):
    dirty = {"commit": "0123456789ab-dirty"}
    for seed, agent in ((1, "dqn"), (2, "dqn"), (2, "recurrent-ppo")):
        (results / f"{agent}-{seed}.json").write_text(json.dumps(result("tmaze-10", agent, seed, 0.5, **dirty)))
    text = report(read_results(results), "memory.png")
    assert "\n3 of the 7 runs name a commit" in text
    assert text.endswith("\n- tmaze-10, in brackets the seeds: RecurrentPPO (2); DQN (1, 2)\n")
