import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MovingSquare

from benchmarks.memory import stale_states
from benchmarks.memory.stale_states import (
    StaleStatesBenchmark,
    compare,
    differences,
    draw_starts,
    history_of,
    main,
    report,
)
from sb3_permakey import PermaKeyObservation, RecurrentDQN
from sb3_permakey.common.presets import STRONG

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.fixture
def agent(checkpoint):
    """An agent that played episodes of 20 steps and learned nothing."""
    agent = RecurrentDQN("PermaKeyPolicy", PermaKeyObservation(MovingSquare(20), checkpoint), seed=0, **STRONG)
    return agent.learn(70)


def test_differences_by_hand():
    values = torch.tensor([[0.0, 1.0], [5.0, 0.0], [0.0, 3.0]])
    truth = torch.tensor([[0.0, 1.0], [0.0, 3.0], [0.0, 5.0]])
    # Errors 0, 2, -2 beside true values of 1, 3, 5, which have a variance of 8 / 3.
    assert differences(values, truth) == pytest.approx({"other_action": 1 / 3, "value_error": 1.0})


def test_states_of_the_same_network_are_true(agent):
    history = history_of(agent.replay_buffer)
    starts = draw_starts(history, (8, 70), 20, seed=0)
    agent.policy.set_training_mode(False)
    found = compare(agent.q_net, history, starts, (0, 4, 32))
    for burn_in in ("0", "4", "32"):
        for place in ("first", "last"):
            assert found["stored"][burn_in][place]["value_error"] < 1e-3
    # Zeros are true where the burn-in begins with its episode, which lasts 20 steps.
    assert found["zero"]["32"]["first"]["value_error"] < 1e-3
    assert found["zero"]["0"]["first"]["value_error"] > 1e-2


def test_windows_lie_in_episodes_and_are_old_enough(agent):
    history = history_of(agent.replay_buffer)
    starts = draw_starts(history, (8, 60), 20, seed=0)
    # 21 slots an episode, the last of which holds no step; 8 steps a window.
    assert (starts % 21 <= 12).all()
    newest = len(history.firsts) - 1
    assert (starts <= newest - 8).all()
    assert (starts >= newest - 60).all()
    assert len(np.unique(starts)) == 20
    with pytest.raises(ValueError, match=r"only \d+ windows begin 8 to 60 steps ago, not 500"):
        draw_starts(history, (8, 60), 500, seed=0)


def test_runs_are_made_once(checkpoint, monkeypatch, tmp_path):
    monkeypatch.setattr(stale_states, "make_atari_env", lambda game, seed: MovingSquare(20))
    monkeypatch.setattr(
        stale_states, "PermaKeyObservation", lambda env, name, readout: PermaKeyObservation(env, checkpoint)
    )
    settings = {
        "steps": 60,
        "learning_starts": 20,
        "ages": (8, 50),
        "windows": 10,
        "burn_ins": (0, 4),
        "results": tmp_path / "stale_states",
        "table": tmp_path / "stale_states.md",
    }
    main(StaleStatesBenchmark(**settings))
    found = json.loads((tmp_path / "stale_states" / "mspacman-0.json").read_text())
    assert found["training"]["updates"] == 20
    assert set(found["update_ms"]) == {"0", "4"}
    assert (
        "| burn-in, online | stored, first | stored, last | zero, first | zero, last |"
        in (tmp_path / "stale_states.md").read_text()
    )
    monkeypatch.setattr(stale_states, "run", None)
    main(StaleStatesBenchmark(**settings))
    with pytest.raises(ValueError, match="made with other settings"):
        main(StaleStatesBenchmark(**{**settings, "windows": 11}))


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="no checkpoint of Pong"):
        StaleStatesBenchmark(games=("Pong",))
    with pytest.raises(ValueError, match="ages must rise"):
        StaleStatesBenchmark(ages=(3000, 20_000))
    with pytest.raises(ValueError, match="burn_ins must be numbers from 0 on"):
        StaleStatesBenchmark(burn_ins=(-1,))


def test_report_is_up_to_date():
    assert (RESULTS / "stale_states.md").read_text() == report(RESULTS / "stale_states")


def test_the_guide_says_what_was_measured():
    runs = [json.loads(path.read_text()) for path in (RESULTS / "stale_states").glob("mspacman-*.json")]
    online = [result["networks"]["online"] for result in runs]

    def share(state, burn_in):
        return 100 * np.mean([network[state][burn_in]["first"]["other_action"] for network in online])

    guide = " ".join((RESULTS.parents[1] / "docs" / "recurrent_agents.md").read_text().split())
    alone, *shares = (f"{share('stored', burn_in):.0f}" for burn_in in ("0", "4", "8", "16", "32"))
    assert f"episode in {alone} % from the stored state alone" in guide
    assert f"a burn-in of 4, 8, 16 and 32 in {', '.join(shares[:-1])} and {shares[-1]} %" in guide
    assert all(abs(share("stored", burn_in) - share("zero", burn_in)) < 2 for burn_in in ("4", "8", "16", "32"))
