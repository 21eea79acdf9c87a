import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from sb3_permakey.training.curves import RunCurve, RunFilesError, group_runs, mean_interval, read_curves


def validated(folder: Path, steps: list[int], scores: list[list[float]]) -> Path:
    """A run with these validations."""
    folder.mkdir(parents=True)
    lengths = np.ones_like(scores, dtype=int)
    np.savez(folder / "evaluations.npz", timesteps=steps, results=scores, ep_lengths=lengths)
    return folder


def monitored(path: Path, begun: float, rows: list[tuple[float, int, float]]) -> Path:
    """A file as SB3's Monitor writes it: score, length and time of each episode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = json.dumps({"t_start": begun, "env_id": "Toy"})
    path.write_text("\n".join([f"#{head}", "r,l,t", *(f"{score},{length},{time}" for score, length, time in rows), ""]))
    return path


def curve(path: Path, means: list[float], steps: list[int] | None = None) -> RunCurve:
    return RunCurve(path, np.array(steps or range(1, len(means) + 1)), tuple(np.array([mean]) for mean in means))


def test_students_interval_by_hand():
    # Mean 4, standard deviation 2, of 4 values: 2 / sqrt(4) = 1; Student's t at 97.5 % with 3 degrees is 3.182.
    values = np.array([4 - np.sqrt(6), 4, 4, 4 + np.sqrt(6)])
    assert mean_interval(values) == pytest.approx((4, 4 - 3.18245, 4 + 3.18245), abs=1e-4)
    assert stats.t.cdf(3.18245, 3) == pytest.approx(0.975, abs=1e-6)
    mean, low, high = mean_interval(np.array([5.0]))
    assert mean == 5
    assert np.isnan([low, high]).all()


def test_validations_of_several_runs(tmp_path):
    first = validated(tmp_path / "dqn-1", [10, 20, 30], [[1, 3], [7, 9], [3, 5]])
    second = validated(tmp_path / "dqn-2", [10, 20, 30, 40], [[2, 2], [4, 4], [6, 6], [99, 99]])
    alone = validated(tmp_path / "rainbow-1", [10], [[1, 3]])
    runs, kind = read_curves([first, alone, second])
    assert kind == "validations"
    dqn, rainbow = group_runs(runs)
    assert (dqn.name, len(dqn.runs), dqn.steps.tolist()) == ("dqn", 2, [10, 20, 30])
    assert [point.mean for point in dqn.curve] == [2, 6, 5]
    # The runs' means 4 and 6: their standard deviation is sqrt(2), over sqrt(2) is 1; t with 1 degree is 12.7062.
    assert dqn.final == pytest.approx((5, 5 - 12.7062, 5 + 12.7062), abs=1e-3)
    assert dqn.best == pytest.approx((7, 7 - 12.7062, 7 + 12.7062), abs=1e-3)  # 8 and 6
    assert rainbow.final == pytest.approx((2, 2 - 12.7062, 2 + 12.7062), abs=1e-3)  # over the games 1 and 3
    assert rainbow.best == rainbow.final


def test_training_episodes_of_several_environments_are_counted_together(tmp_path):
    monitored(tmp_path / "run" / "0.monitor.csv", 1000, [(1, 10, 1.0), (3, 10, 3.0)])
    monitored(tmp_path / "run" / "1.monitor.csv", 1000.5, [(5, 30, 1.0), (7, 50, 4.0)])
    (run,), kind = read_curves([tmp_path / "run"])
    assert kind == "episodes"
    # Episodes end after 10, 40, 50 and 100 steps with 1, 5, 3 and 7; points lie 100 / 50 = 2 steps apart.
    assert run.steps[[0, -1]].tolist() == [10, 100]
    assert dict(zip(run.steps.tolist(), run.means.tolist(), strict=True)) == {
        step: 1 if step < 40 else 3 if step < 50 else 3 if step < 100 else 4 for step in range(10, 101, 2)
    }


def test_the_last_hundred_episodes_count(tmp_path):
    path = monitored(tmp_path / "a.monitor.csv", 0, [(float(number), 1, number) for number in range(200)])
    (run,), _ = read_curves([path])
    assert run.steps.tolist() == list(range(4, 201, 4))
    assert run.means[-1] == np.mean(range(100, 200))
    assert run.means[0] == np.mean(range(4))


def test_a_line_that_is_being_written_does_not_count(tmp_path):
    path = monitored(tmp_path / "a.monitor.csv", 0, [(1, 10, 1), (3, 10, 2)])
    path.write_text(path.read_text() + "99,1")
    (run,), _ = read_curves([path])
    assert (run.steps[-1], run.means[-1]) == (20, 2)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("number", {"a/dqn": 2, "b/dqn": 1, "seeds": 2, "CartPole-v1": 1, "ppo": 1}),
        ("parent", {"a": 2, "b": 1, "seeds": 2, "x": 2}),
        ("none", {"a/dqn-1": 1, "dqn-2": 1, "b/dqn-1": 1, "0": 1, "1": 1, "CartPole-v1": 1, "ppo_7": 1}),
    ],
)
def test_groups(rule, expected):
    paths = ["a/dqn-1", "a/dqn-2", "b/dqn-1", "seeds/0", "seeds/1", "x/CartPole-v1", "x/ppo_7"]
    groups = group_runs([curve(Path(path), [1.0]) for path in paths], rule)
    assert {group.name: len(group.runs) for group in groups} == expected


def test_runs_without_common_steps_are_refused():
    runs = [curve(Path("dqn-1"), [1.0], [10]), curve(Path("dqn-2"), [1.0], [20])]
    with pytest.raises(RunFilesError, match="the runs of dqn have no steps in common"):
        group_runs(runs)
    assert len(group_runs(runs, "none")) == 2


def test_files_that_are_missing_or_broken(tmp_path):
    run = validated(tmp_path / "good", [10], [[1.0]])
    broken, text = tmp_path / "broken", tmp_path / "text"
    broken.mkdir()
    (broken / "evaluations.npz").write_bytes((run / "evaluations.npz").read_bytes()[:100])
    monitored(text / "monitor.csv", 0, [(1, 1, 1)]).write_text("r,l,t\n1,1,1\n")
    monitored(tmp_path / "none" / "monitor.csv", 0, [])
    (tmp_path / "empty").mkdir()
    (tmp_path / "short").mkdir()
    (tmp_path / "short" / "config.json").write_text("{}")
    for paths, kind, sentence in (
        ([tmp_path / "nowhere"], None, "no run at"),
        ([run, run], None, "a run is given twice"),
        ([tmp_path / "empty"], None, "has neither evaluations.npz nor"),
        ([tmp_path / "short"], None, r"short was not validated yet: .* \(--validate-every\)"),
        ([run], "episodes", "has no .*monitor.csv"),
        ([text], "validations", "has no evaluations.npz"),
        ([run, text], None, "but others have nothing else: compare them apart"),
        ([broken], None, "is not a whole file of validations"),
        ([text], None, "is not a whole file of SB3's Monitor"),
        ([tmp_path / "none"], None, "has no finished episode"),
    ):
        with pytest.raises(RunFilesError, match=sentence):
            read_curves(paths, kind)
