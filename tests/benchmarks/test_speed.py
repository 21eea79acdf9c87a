import pytest
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_vec_env

from benchmarks.speed.agents import REFERENCE, SpeedBenchmark, of_own_process, replay_bytes, sb3_replay_bytes, table
from benchmarks.speed.report import draw, readme_table, report, short_tables
from sb3_permakey import RecurrentDQN

AGENT = {"steps_per_s": 100.0, "ratio_to_dqn": 1.0, "acting_steps_per_s": 300.0, "peak_memory_mib": 400.0}


def result():
    kinds = (
        ("dense", "bfloat16", 40.0),
        ("streaming", "float32", 200.0),
        ("streaming, peaks", "float32", 400.0),
    )
    new = {"new_frames_share": 0.9, "new_cells_per_frame": [700.0, 200.0], "new_patches_per_frame": [80.0, 50.0]}
    rows = [
        {
            "game": game,
            "detector": name,
            "precision": precision,
            "batch_size": size,
            "frames_per_s": rate * size,
            "arithmetic_ms": 2.0,
            "traffic_ms": 0.5,
            **(new if name != "dense" else {}),
        }
        for game in ("mspacman", "seaquest")
        for name, precision, rate in kinds
        for size in (1, 8)
    ]
    return {
        "detectors": {
            "rows": rows,
            "authors_frames_per_s": {"1": 9.7, "32": 22.9},
            "matrix_product_gflops": {"float32": 180.0},
            "copy_gbytes_per_s": 20.0,
        },
        "agents": {
            REFERENCE: {**AGENT, "replay_bytes_per_step": 200.0, "share_of_sb3s_buffer": 1.0},
            "RecurrentPPO": AGENT,
            "RecurrentDQN, pixels, 4 windows of 8": {**AGENT, "steps_per_s": 80.0, "ratio_to_dqn": 0.8},
            "RecurrentDQN, PKey-GNN": AGENT,
        },
        "scaling": {"keypoints": {"5": 90.0, "10": 80.0}, "environments": {"1": 90.0, "2": 95.0}},
        "threads": 2,
        "machine": {"cpu": "a processor", "gpu": None},
        "commit": "abc",
    }


def test_report_has_every_figure():
    text = report(result())
    assert "| game | dense, bfloat16, 1 | dense, bfloat16, 8 | streaming, float32, 1 |" in text
    assert "| seaquest | 40 | 320 | 200 | 1600 | 400 | 3200 |" in text
    assert f"| {REFERENCE} | 100 | 1.00 | 300 | 400 | 200 | 1.00 |" in text
    assert "| RecurrentPPO | 100 | 1.00 | 300 | 400 | - | - |" in text
    assert "| keypoints | 5 | 10 |" in text
    assert "| seaquest | dense, bfloat16 | 8 | 3.12 | 2.00 | 0.50 | - | - | - |" in text
    assert "| seaquest | streaming, float32 | 1 | 5.00 | 2.00 | 0.50 | 0.90 | 700, 200 | 80, 50 |" in text


def test_a_game_without_a_student_has_no_figure_of_it():
    of_students = result()
    rows = of_students["detectors"]["rows"]
    rows.append({**rows[0], "detector": "distilled, peaks", "precision": "float32", "frames_per_s": 1000.0})
    text = report(of_students)
    assert "| mspacman | 40 | 320 | 200 | 1600 | 400 | 3200 | 1000 |" in text
    assert "| seaquest | 40 | 320 | 200 | 1600 | 400 | 3200 | - |" in text
    assert "| mspacman | distilled, peaks, float32 | 1 | 1.00 | 2.00 | 0.50 | - | - | - |" in text
    assert len(draw(of_students).axes[0].patches) == 7


def test_short_tables():
    lines = short_tables(result())
    assert "| seaquest | 40 | 200 | 400 |" in lines
    assert f"| {REFERENCE} | 100 | 1.00 |" in lines


def test_the_readmes_table():
    assert readme_table(result())[2:] == [
        "| keypoints, the authors' released code | 9.7 frames | 1.0 |",
        "| keypoints, dense | 40 frames | 4.1 |",
        "| keypoints, streaming | 200 frames | 20.6 |",
        "| keypoints, streaming, peaks | 400 frames | 41.2 |",
        "| DQN, pixels | 100 steps | 1.00 |",
        "| RecurrentDQN, pixels, 4 windows of 8 | 80 steps | 0.80 |",
        "| RecurrentDQN, PKey-GNN | 100 steps | 1.00 |",
    ]


def test_chart_has_three_panels():
    panels = draw(result()).axes
    assert [len(panel.patches) for panel in panels[:2]] == [6, 4]
    assert len(panels[2].lines) == 2


def test_table_has_a_row_an_agent():
    assert len(table(result()["agents"])) == 6


@pytest.mark.parametrize("algorithm", [DQN, RecurrentDQN])
def test_replay_bytes_by_hand(algorithm):
    """CartPole: 16 bytes an observation. SB3 stores two, an action (8), a reward, done and timeout (4 each).

    RecurrentDQN stores one, an action (8), a reward (4), terminated and acted (1 each), its episode's ends (8 each).
    """
    policy = "MlpPolicy" if algorithm is DQN else "MlpLstmPolicy"
    agent = algorithm(policy, make_vec_env("CartPole-v1"), buffer_size=500, learning_starts=10, device="cpu").learn(20)
    assert sb3_replay_bytes(agent) == 52
    assert replay_bytes(agent.replay_buffer) == (52 if algorithm is DQN else 46)


def test_what_fails_in_a_process_of_its_own_is_told(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with pytest.raises(KeyError, match="no agent"):
        of_own_process("no agent", SpeedBenchmark(threads=1))
