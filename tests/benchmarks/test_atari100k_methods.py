import pytest
from stable_baselines3 import DQN

from benchmarks.atari100k.methods import PRESETS, agent_settings, algorithm_of, preset_of
from benchmarks.atari100k.run import Atari100kBenchmark, make_tasks
from benchmarks.atari100k.tasks import Run, Schedule, make_run
from sb3_permakey import RecurrentQRDQN
from sb3_permakey.common.presets import DATA_EFFICIENT_RAINBOW


def test_presets_and_overrides():
    assert agent_settings("recurrent-dqn-pixels", "paper") == {}
    assert agent_settings("permakey-cnn", "paper") == {"policy_kwargs": {"keypoint_encoder": "cnn"}}
    strong = agent_settings("permakey-peaks-gnn", "strong", ("gamma=0.9", "policy_kwargs.dueling=False"))
    assert strong["batch_size"] == 32
    assert strong["gamma"] == 0.9
    assert strong["policy_kwargs"] == {
        "dueling": False,
        "act_with_target": True,
        "keypoint_encoder": "gnn",
        "features_extractor_kwargs": {"aggregate": "pool", "layer_norm": True, "position_frequencies": 4},
    }
    # Nothing of it sticks.
    assert PRESETS["strong"].agent["policy_kwargs"] == {
        "dueling": True,
        "act_with_target": True,
        "features_extractor_kwargs": {"aggregate": "pool", "layer_norm": True, "position_frequencies": 4},
    }
    # Only the GNN has its settings.
    assert "features_extractor_kwargs" not in agent_settings("permakey-peaks-cnn", "strong")["policy_kwargs"]
    assert agent_settings("recurrent-dqn-pixels", "strong")["policy_kwargs"] == {
        "dueling": True,
        "act_with_target": True,
    }
    assert agent_settings("grid-gnn", "paper", ("recurrent_state=stored",))["recurrent_state"] == "stored"
    assert agent_settings("random", None, ("gamma=1",)) == {}
    assert preset_of("der-pixels", "strong") is None
    assert agent_settings("der-pixels", None, ("n_steps=10",)) == {**DATA_EFFICIENT_RAINBOW, "n_steps": 10}
    with pytest.raises(ValueError, match="written like learning_rate=1e-4, not 'gamma'"):
        agent_settings("grid-gnn", "paper", ("gamma",))


def test_encoders_are_compared_by_methods_and_settings():
    layer = "policy_kwargs.features_extractor_kwargs."
    overrides = (f"{layer}conv=GATv2Conv", f"{layer}conv_kwargs={{'heads': 4}}", f"{layer}aggregate=pool")
    for name, encoder in (("permakey-peaks-gnn-rainbow", "gnn"), ("permakey-peaks-attention-rainbow", "attention")):
        preset = preset_of(name, "paper")
        assert preset == "rainbow"
        assert agent_settings(name, preset)["policy_kwargs"] == {"keypoint_encoder": encoder}
    extractor = agent_settings("permakey-peaks-gnn-rainbow", "rainbow", overrides)["policy_kwargs"]
    assert extractor["features_extractor_kwargs"] == {
        "conv": "GATv2Conv",
        "conv_kwargs": {"heads": 4},
        "aggregate": "pool",
    }


def test_a_learning_rate_may_fall_to_zero():
    settings = agent_settings("permakey-gnn", "paper", ("learning_rate=lin_2e-4", "gamma=0.9"))
    rate = algorithm_of("permakey-gnn", settings)[1]["learning_rate"]
    assert [rate(remaining) for remaining in (1.0, 0.5, 0.0)] == pytest.approx([2e-4, 1e-4, 0])
    for wrong in ("2e-4x", "lin_fast", "cos_1e-4"):
        with pytest.raises(ValueError, match="learning_rate must be a number or like lin_2e-4"):
            algorithm_of("permakey-gnn", {"learning_rate": wrong})


def test_a_setting_may_name_another_algorithm():
    assert algorithm_of("dqn-pixels", {"gamma": 0.9}) == (DQN, {"gamma": 0.9})
    settings = agent_settings("permakey-gnn", "paper", ("algorithm=recurrent-qrdqn", "gamma=0.9"))
    algorithm, arguments = algorithm_of("permakey-gnn", settings)
    assert algorithm is RecurrentQRDQN
    assert arguments == {"gamma": 0.9, "policy_kwargs": {"keypoint_encoder": "gnn"}}
    with pytest.raises(ValueError, match="algorithm must be one of recurrent-dqn, .* not 'ppo'"):
        algorithm_of("permakey-gnn", {"algorithm": "ppo"})
    with pytest.raises(ValueError, match="QRDQN has no argument 'burn_in'"):
        algorithm_of("qrdqn-pixels", {"burn_in": 3})


def test_runs_leave_out_what_their_method_does_not_know():
    names = [make_run("MsPacman", method, "strong", "clean", None, 1).name for method in ("random", "dqn-pixels")]
    assert names == ["mspacman-random-clean-1", "mspacman-dqn-pixels-clean-1"]
    assert make_run("Seaquest", "grid-gnn", "paper", "both", None, 0).name == "seaquest-grid-gnn-paper-k10-both-0"
    assert make_run("MsPacman", "recurrent-dqn-pixels", "paper", "clean", 5, 0).num_keypoints is None
    with pytest.raises(ValueError, match="no number of keypoints for 'Pong'"):
        make_run("Pong", "permakey-gnn", "paper", "clean", None, 0)
    with pytest.raises(ValueError, match="seed must be from 0 to 999999"):
        Run("MsPacman", "random", None, "clean", None, 1_000_000)


def test_settings_that_the_algorithm_does_not_take_are_named():
    with pytest.raises(ValueError, match="RecurrentDQN has no argument 'sequence'"):
        make_tasks(Atari100kBenchmark(games=("MsPacman",), settings=("sequence=4",)))
    with pytest.raises(ValueError, match="steps must be at least 1"):
        Schedule(steps=0)
