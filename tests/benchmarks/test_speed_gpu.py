import json

import numpy as np
import pytest

from benchmarks.harness.schema import file_problems
from benchmarks.speed import gpu
from benchmarks.speed.agents import REFERENCE
from benchmarks.speed.report import SCHEMAS
from sb3_permakey import RecurrentDQN
from sb3_permakey.keypoints import PermaKeyConfig

TINY = {"batch_size": 2, "precision": "float32", "model": PermaKeyConfig(num_keypoints=2, layers=(1,))}


def test_turns_go_round_while_there_is_time():
    said = []
    times = iter([True, False])
    kinds = {name: lambda name=name: said.append(name) or len(said) for name in ("a", "b")}
    assert gpu.in_turns(kinds, 5, lambda: next(times)) == {"a": [1, 3], "b": [2, 4]}
    assert said == ["a", "b", "a", "b"]


def test_a_clock_allows_its_part_of_the_time(monkeypatch):
    now = 104.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    clock = gpu.Clock(10.0, started=100.0)
    assert clock.allows(0.5)
    now = 106.0
    assert not clock.allows(0.5)
    assert clock.allows()
    now = 110.0
    assert not clock.allows()


def test_a_tiny_run(monkeypatch, tmp_path, one_thread, capsys):
    def agent():
        return RecurrentDQN("MlpLstmPolicy", "CartPole-v1", learning_starts=10, buffer_size=500, device="cpu")

    monkeypatch.setattr(gpu, "PRETRAINING", {"tiny": TINY})
    monkeypatch.setattr(gpu, "FRAMES", 8)
    monkeypatch.setattr(gpu, "CALLS", 2)
    monkeypatch.setattr(gpu, "FRAMES_AT_ONCE", 3)
    monkeypatch.setattr(gpu, "agents", lambda config: {REFERENCE: agent, "other": agent})
    monkeypatch.setitem(gpu.SMALL, "learning_starts", 10)
    out = tmp_path / "gpu_speed.json"
    settings = {"turns": 2, "turn_s": 0.01, "steps_at_once": 1, "threads": 1, "device": "cpu"}
    gpu.main(gpu.GpuSpeed(**settings, out=out))
    result = json.loads(out.read_text())
    assert {name: len(ms) for name, ms in result["pretraining_ms"].items()} == {"tiny": 2}
    assert {name: len(speeds) for name, speeds in result["agents"].items()} == {REFERENCE: 2, "other": 2}
    assert {len(ms) for ms in result["detectors_ms"].values()} == {2}
    assert result["detectors_ms"].keys() == {
        f"{count} frame(s), {name}" for count in (1, 3) for name in ("CPU, streaming", "GPU", "GPU, one replay")
    }
    assert result["card"] == result["machine"]["cpu"]
    out.write_text(json.dumps({**result, "commit": "0123456789ab"}))
    assert file_problems(out, tmp_path, SCHEMAS) == []
    result["agents"] = {REFERENCE: [100.0, 200.0], "other": [150.0, 100.0]}
    assert "| other | 125 | 1.00 | 150, 100 |" in gpu.tables(result)
    assert f"{np.median(result['pretraining_ms']['tiny']):.1f}" in capsys.readouterr().out


@pytest.mark.parametrize(("count", "updates"), [(16, 8), (2, 1), (1, 1)])
def test_several_environments_have_as_many_updates_a_step(monkeypatch, count, updates):
    """The settings strong learn every second step."""
    taken = {}
    monkeypatch.setattr(gpu, "SubprocVecEnv", list)
    monkeypatch.setattr(gpu, "VecPermaKeyObservation", lambda games, checkpoint, **detector: len(games))
    monkeypatch.setattr(gpu, "RecurrentDQN", lambda policy, env, **settings: taken.update(settings, env=env))
    gpu.strong_on_many("cpu", count)
    assert (taken["env"], taken["train_freq"], taken["gradient_steps"]) == (count, 1, updates)
