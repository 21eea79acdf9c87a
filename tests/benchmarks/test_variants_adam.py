import json

import pytest
from conftest import MovingSquare

from benchmarks.variants import adam
from benchmarks.variants.adam import AdamBenchmark, learn, main, played
from sb3_permakey import PermaKeyObservation


@pytest.fixture
def settings(tmp_path):
    return {"games": ("MsPacman",), "seeds": 1, "steps": 60, "updates": 4, "parts": 2, "results": tmp_path / "adam"}


def test_nothing_but_epsilon_differs(checkpoint):
    player = played(PermaKeyObservation(MovingSquare(7), checkpoint), 60)
    assert (player._n_updates, player.replay_buffer.size()) == (0, 60)
    same, again, other = (learn(player, epsilon, 0, 4, 2) for epsilon in (1e-8, 1e-8, 1.0))
    assert same == again
    # The first gradient is the same, and with an epsilon of 1 hardly anything is learned.
    assert learn(player, 1e-8, 0, 1, 1)["grad_norm"] == learn(player, 1.0, 0, 1, 1)["grad_norm"]
    assert same["grad_norm"] != other["grad_norm"]
    assert len(same["q_mean"]) == 2


def test_games_are_done_once(checkpoint, monkeypatch, tmp_path, settings):
    monkeypatch.setattr(adam, "make_atari_env", lambda game, seed: MovingSquare(5))
    monkeypatch.setattr(adam, "PermaKeyObservation", lambda env, name: PermaKeyObservation(env, checkpoint))
    out = tmp_path / "adam.md"
    main(AdamBenchmark(table=out, **settings))
    found = json.loads((tmp_path / "adam" / "mspacman.json").read_text())
    assert set(found["epsilons"]) == {"1e-08", "0.00015"}
    norm = found["epsilons"]["1e-08"][0]["grad_norm"][0]
    assert f"| grad norm, 1e-08 | {norm:.3f} ({norm:.3f}) |" in out.read_text()
    assert "| figure, epsilon; updates | 0 to 2 | 2 to 4 |" in out.read_text()
    monkeypatch.setattr(adam, "played", None)
    main(AdamBenchmark(table=out, **settings))
    with pytest.raises(ValueError, match="made with other settings"):
        main(AdamBenchmark(table=out, **{**settings, "seeds": 3}))


def test_bad_settings_are_named(settings):
    with pytest.raises(ValueError, match="updates must be a multiple of parts, not 5 in 2"):
        AdamBenchmark(**{**settings, "updates": 5})
    with pytest.raises(ValueError, match="no checkpoint of Pong"):
        AdamBenchmark(**{**settings, "games": ("Pong",)})
