import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MovingSquare

from benchmarks.variants import encoders
from benchmarks.variants.encoders import EncoderBenchmark, discounted, explained, main, play, report
from sb3_permakey import PermaKeyObservation

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.fixture
def settings(tmp_path):
    return {"games": ("MsPacman",), "seeds": 2, "steps": 60, "updates": (1, 3), "results": tmp_path / "encoders"}


def test_discounted_sums_by_hand():
    values, ends = np.array([1.0, 2.0, 4.0, 8.0]), np.array([False, True, False, False])
    # 1 + 2 / 2, 2 with its episode's end, 4 + 8 / 2, 8.
    assert discounted(values, ends, 0.5).tolist() == [2, 2, 8, 8]


def test_explained_variance_by_hand():
    wanted = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    # Variances 1 and 4; mean squared errors 0.25 and 8.
    assert explained(torch.tensor([[1.5, 0.0], [3.5, 0.0]]), wanted) == pytest.approx([0.75, -1.0])


def test_later_episodes_are_judged(checkpoint):
    data = play(PermaKeyObservation(MovingSquare(7), checkpoint), 60, 0.9)
    # Episodes end after each 7th step; the first end in the last quarter is step 49's.
    assert len(data.learned_targets) == len(data.learned["keypoints"]) == 49
    assert len(data.judged_targets) == len(data.judged["keypoints"]) == 11
    assert data.learned_targets.mean(0)[1].abs() < 1e-6
    with pytest.raises(ValueError, match="no episode ended in the last quarter of 60 steps"):
        play(PermaKeyObservation(MovingSquare(100), checkpoint), 60, 0.9)


def test_encoders_are_judged_once(checkpoint, monkeypatch, tmp_path, settings):
    monkeypatch.setattr(encoders, "make_atari_env", lambda game, seed: MovingSquare(5))
    monkeypatch.setattr(
        encoders, "PermaKeyObservation", lambda env, name, readout: PermaKeyObservation(env, checkpoint)
    )
    out = tmp_path / "encoders.md"
    main(EncoderBenchmark(variants=("pool",), table=out, **settings))
    found = json.loads((tmp_path / "encoders" / "mspacman.json").read_text())
    assert np.array(found["variants"]["pool"]).shape == (2, 2, 2)
    assert "| encoder | rewards, 1 | rewards, 3 | lost life, 1 | lost life, 3 |" in out.read_text()
    monkeypatch.setattr(encoders, "play", None)
    main(EncoderBenchmark(variants=("pool",), table=out, **settings))
    with pytest.raises(ValueError, match="made with other settings"):
        main(EncoderBenchmark(variants=("pool",), table=out, **{**settings, "seeds": 3}))


def test_bad_settings_are_named(settings):
    with pytest.raises(ValueError, match="unknown variant 'sum'"):
        EncoderBenchmark(variants=("sum",))
    with pytest.raises(ValueError, match="no checkpoint of Pong"):
        EncoderBenchmark(games=("Pong",))
    with pytest.raises(ValueError, match="updates must be rising"):
        EncoderBenchmark(updates=(5, 2))


def test_report_is_up_to_date():
    assert (RESULTS / "encoders.md").read_text() == report(RESULTS / "encoders")
