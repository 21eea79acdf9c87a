import json

import numpy as np
import pytest
from conftest import NUM_KEYPOINTS, MovingSquare

from sb3_permakey import Rainbow, RecurrentDQN, RecurrentQRDQN
from sb3_permakey.common.presets import STRONG
from sb3_permakey.encoders import KEYPOINT_ENCODERS, KeypointCNN
from sb3_permakey.envs import named
from sb3_permakey.envs.distractors import BAR_COLOR
from sb3_permakey.envs.named import NamedEnvironment
from sb3_permakey.envs.novelty import VecKeypointNovelty
from sb3_permakey.keypoints import ReadoutConfig
from sb3_permakey.play.saved_agents import AgentFileError, FrameAgent, load_agent
from sb3_permakey.training import run as training
from sb3_permakey.training.presets import ALGORITHMS
from sb3_permakey.training.run import TrainConfig, agent_arguments, make_envs, new_agent, train
from sb3_permakey.training.validation import validation_scores

SHORT = {"game": "MsPacman", "steps": 30, "learning_starts": 10, "batch_size": 2, "buffer_size": 100}


@pytest.fixture(autouse=True)
def short_validation(monkeypatch):
    """Games of validation are cut after 60 steps."""
    monkeypatch.setattr(training, "VALIDATION_STEPS", 60)


def test_an_agent_on_pixels_and_a_run_shorter_than_a_validation(tmp_path):
    config = TrainConfig(out=tmp_path, num_envs=2, **SHORT)
    assert train(config) == tmp_path / "final_model.zip"
    assert validation_scores(tmp_path) == []
    assert FrameAgent(tmp_path / "final_model.zip", None).detector is None


def test_noisy_training_draws_bars_in_all_environments(tmp_path):
    config = TrainConfig(out=tmp_path, distractor="vertical", **SHORT)
    for max_steps in (None, 100):
        env = make_envs(config, 2, 0, max_steps)
        for frames in (env.reset(), env.step([0, 0])[0]):
            bars = (frames == np.array(BAR_COLOR).reshape(3, 1, 1)).all(axis=1)
            assert bars.all(axis=1).sum(axis=1).tolist() == [5, 5]
    train(config)
    assert json.loads((tmp_path / "config.json").read_text())["distractor"] == "vertical"


def test_the_cnn_encoder_with_validation(checkpoint, tmp_path):
    settings = {**SHORT, "steps": 12, "learning_starts": 4, "batch_size": 1}
    config = TrainConfig(
        out=tmp_path, checkpoint=checkpoint, encoder="cnn", validate_every=12, validation_episodes=1, **settings
    )
    best = train(config)
    assert best == tmp_path / "best_model.zip"
    assert [step for step, _ in validation_scores(tmp_path)] == [12]
    assert isinstance(load_agent(best).q_net.features_extractor, KeypointCNN)
    with pytest.raises(AgentFileError, match="sees keypoints: name the checkpoint"):
        FrameAgent(best, None)


def test_a_preset_is_the_agent_where_no_flag_says_otherwise(checkpoint, tmp_path):
    def arguments(**settings):
        return agent_arguments(TrainConfig(game="MsPacman", out=tmp_path, **settings))

    paper = {"device": "auto", "seed": 0}
    assert arguments() == paper
    assert arguments(checkpoint=checkpoint, learning_rate=1e-3) == {
        **paper,
        "learning_rate": 1e-3,
        "policy_kwargs": {"keypoint_encoder": "gnn"},
    }
    strong = arguments(checkpoint=checkpoint, algo="recurrent-dqn", preset="strong", batch_size=4, aggregate="concat")
    assert strong["batch_size"] == 4
    assert strong["burn_in"] == STRONG["burn_in"]
    of_gnn = STRONG["policy_kwargs"]["features_extractor_kwargs"]
    assert strong["policy_kwargs"]["features_extractor_kwargs"] == {**of_gnn, "aggregate": "concat"}
    assert STRONG["batch_size"] != 4
    for other in ({}, {"checkpoint": checkpoint, "encoder": "cnn"}):
        policy = arguments(algo="recurrent-dqn", preset="strong", **other)["policy_kwargs"]
        assert policy["dueling"] is True
        assert "features_extractor_kwargs" not in policy


@pytest.mark.parametrize(
    ("flags", "algorithm", "readout", "history"),
    [
        ({}, RecurrentDQN, "pointnet", 0),
        ({"algo": "recurrent-qrdqn"}, RecurrentQRDQN, "pointnet", 0),
        ({"algo": "recurrent-qrdqn", "preset": "strong"}, RecurrentQRDQN, "peaks", 0),
        ({"algo": "rainbow"}, Rainbow, "peaks", 3),
        ({"preset": "rainbow", "history": 1}, Rainbow, "peaks", 1),
        ({"preset": "rainbow", "encoder": "gnn", "readout": ReadoutConfig("pointnet")}, Rainbow, "pointnet", 3),
        ({"algo": "rainbow", "encoder": "attention", "readout": ReadoutConfig("peaks", 25)}, Rainbow, "peaks", 3),
        ({"algo": "recurrent-dqn", "preset": "strong", "encoder": "attention"}, RecurrentDQN, "peaks", 0),
        ({"preset": "strong"}, Rainbow, "peaks", 3),
        ({"algo": "rainbow", "preset": "strong"}, Rainbow, "peaks", 3),
    ],
)
def test_every_algorithm_trains_and_plays(checkpoint, tmp_path, flags, algorithm, readout, history):
    config = TrainConfig(out=tmp_path, checkpoint=checkpoint, **{**SHORT, "steps": 14, "learning_starts": 12}, **flags)
    model = load_agent(train(config))
    assert type(model) is algorithm
    assert model.observation_space.readout.kind.name == readout
    assert model.observation_space.history == history
    written = json.loads((tmp_path / "config.json").read_text())
    assert ALGORITHMS[written["algo"]] is algorithm
    assert (written["readout"], written["history"]) == (readout, history)
    assert isinstance(model.q_net.features_extractor, KEYPOINT_ENCODERS[written["encoder"]])
    frames = np.zeros((2, 84, 84, 3), np.uint8)
    assert FrameAgent(tmp_path / "final_model.zip", checkpoint).act(frames, np.ones(2, bool)).shape == (2,)


@pytest.mark.parametrize("context", ["none", "image", "glimpses"])
def test_rainbow_reads_frames_beside_keypoints_where_it_is_told(checkpoint, tmp_path, context):
    settings = {**SHORT, "steps": 14, "learning_starts": 12, "algo": "rainbow", "context": context}
    model = load_agent(train(TrainConfig(out=tmp_path, checkpoint=checkpoint, **settings)))
    assert ("image" in model.observation_space.spaces) == (context != "none")
    assert (model.q_net.features_extractor.frames is not None) == (context == "image")
    assert (model.q_net.features_extractor.glimpses is not None) == (context == "glimpses")
    assert json.loads((tmp_path / "config.json").read_text())["context"] == context
    frames = np.zeros((2, 84, 84, 3), np.uint8)
    assert FrameAgent(tmp_path / "final_model.zip", checkpoint).act(frames, np.ones(2, bool)).shape == (2,)


def test_rainbow_goes_on_where_it_was_killed(checkpoint, tmp_path):
    settings = {**SHORT, "checkpoint": checkpoint, "algo": "rainbow", "learning_starts": 12}
    train(TrainConfig(out=tmp_path, **{**settings, "steps": 20}))
    train(TrainConfig(out=tmp_path, **{**settings, "steps": 30}))
    assert load_agent(tmp_path / "final_model.zip").num_timesteps >= 30


@pytest.mark.parametrize("name", [None, "pointnet"])
def test_the_strong_preset_reads_peaks_unless_told_otherwise(checkpoint, tmp_path, name):
    settings = {**SHORT, "steps": 14, "learning_starts": 12}
    agent = {"algo": "recurrent-dqn", "preset": "strong", "readout": ReadoutConfig(name)}
    config = TrainConfig(out=tmp_path, checkpoint=checkpoint, **agent, **settings)
    space = load_agent(train(config)).observation_space
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["readout"] == (name or "peaks")
    assert (written["burn_in"], written["learning_starts"], written["n_steps"]) == (STRONG["burn_in"], 12, 3)
    assert ("confidence" in space.spaces) == (name is None)
    assert space.readout.kind.name == (name or "peaks")


@pytest.mark.parametrize(("num_envs", "train_freq"), [(1, 4), (4, 4), (8, 2), (3, 4), (6, 4), (2, 1)])
def test_several_environments_make_as_many_updates_for_their_steps_as_one(tmp_path, monkeypatch, num_envs, train_freq):
    monkeypatch.setattr(named, "make_atari_env", lambda *args, **kwargs: MovingSquare(5))
    config = TrainConfig(
        **{**SHORT, "out": tmp_path, "steps": 96, "learning_starts": 48, "train_freq": train_freq}, num_envs=num_envs
    )
    env = make_envs(config, num_envs, 0)
    model = new_agent(config, env).learn(config.steps)
    steps = model.num_timesteps - 48
    # Rollouts that begin before learning starts make no updates.
    assert model._n_updates == pytest.approx(steps / train_freq, abs=12 / train_freq)


def test_agents_on_peaks_of_the_contrast(checkpoint, tmp_path):
    peaks = ReadoutConfig("peaks", surround_px=18.0, centroid_px=10.0)
    best = train(TrainConfig(out=tmp_path, checkpoint=checkpoint, readout=peaks, **{**SHORT, "steps": 12}))
    wanted = ReadoutConfig("peaks", NUM_KEYPOINTS, surround_px=18.0, centroid_px=10.0)
    assert load_agent(best).observation_space.readout == wanted
    assert FrameAgent(best, checkpoint).detector.readout == wanted


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be"),
        ({"algo": "rainbow"}, "rainbow has no memory, and one frame shows no motion: give the checkpoint"),
        ({"algo": "rainbow", "checkpoint": "mspacman", "sequence_length": 4}, "sequence_length is of agents with a"),
        ({"algo": "rainbow", "preset": "paper"}, "the preset paper is of the algorithm recurrent-dqn or"),
        ({"checkpoint": "mspacman", "history": -1}, "history must be at least 0, not -1"),
        ({"seed": 1_000_000}, "seed must be from 0 to"),
        ({"steps": 300, "learning_starts": None}, "steps must be more than learning_starts, 10000, .* not 300"),
        ({"steps": 10}, "steps must be more than learning_starts, 10, before which nothing is learned, not 10"),
        ({"train_freq": 0}, "train_freq must be at least 1, not 0"),
        ({"batch_size": -4}, "batch_size must be at least 1, not -4"),
        ({"buffer_size": 0}, "buffer_size must be at least 1, not 0"),
        ({"sequence_length": 0}, "sequence_length must be at least 1, not 0"),
        ({"learning_starts": -1}, "learning_starts must be at least 0, not -1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, not 0.0"),
        ({"exploration_fraction": 5.0}, "exploration_fraction must be from 0 to 1, not 5.0"),
        ({"exploration_fraction": 0.0}, "exploration_fraction must be positive, not 0.0"),
        ({"exploration_final_eps": 1.5}, "exploration_final_eps must be from 0 to 1, not 1.5"),
        ({"seed": -1}, "seed must be from 0 to"),
        ({"encoder": "cnn"}, "encoder is of keypoints: give the checkpoint"),
        ({"aggregate": "pool"}, "aggregate is of keypoints: give the checkpoint"),
        (
            {"checkpoint": "x", "encoder": "cnn", "aggregate": "pool"},
            "aggregate is the GNN's: it needs the encoder gnn",
        ),
        ({"context": "image"}, "context is of keypoints: give the checkpoint"),
        ({"novelty": 0.1}, "novelty is of keypoints: give the checkpoint"),
        ({"novelty": -1.0}, "novelty must be at least 0"),
        ({"checkpoint": "x", "context": "image"}, "context is of the encoder pairs, not of gnn"),
        ({"readout": ReadoutConfig("peaks")}, "readout is of keypoints: give the checkpoint"),
        ({"readout": ReadoutConfig(centroid_px=10.0)}, "centroid_px is of keypoints: give the checkpoint"),
    ],
)
def test_impossible_settings_are_named(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**{"out": tmp_path, **SHORT, **settings})


def test_keypoints_of_another_game_deserve_a_warning_in_training_and_in_play(tmp_path):
    settings = {**SHORT, "game": "Pong", "steps": 12, "validate_every": 100}
    with pytest.warns(UserWarning, match="mspacman was trained on MsPacman: its keypoints may miss what Pong shows"):
        best = train(TrainConfig(out=tmp_path, checkpoint="mspacman", **settings))
    agent = FrameAgent(best, "mspacman")
    assert json.loads((tmp_path / "config.json").read_text())["readout"] == "peaks"  # a student has no PointNet
    with pytest.warns(UserWarning, match="mspacman was trained on MsPacman: its keypoints may miss what Pong shows"):
        agent.require_fit(NamedEnvironment("pong"), agent.agent.action_space)


def test_a_device_that_is_not_there_is_not_replaced_by_another(tmp_path):
    with pytest.raises(ValueError, match="there is no device meta on this machine"):
        train(TrainConfig(out=tmp_path, device="meta", **SHORT))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("novelty", "learns_with"), [(0.5, True), (0, False), (None, False)])
def test_novelty_is_for_learning_alone(checkpoint, tmp_path, monkeypatch, novelty, learns_with):
    made = {}

    def noted(name):
        plain = getattr(training, name)
        monkeypatch.setattr(training, name, lambda config: made.setdefault(name, plain(config)))

    noted("training_envs")
    noted("validation_envs")
    train(TrainConfig(out=tmp_path, checkpoint=checkpoint, novelty=novelty, **SHORT))
    assert isinstance(made["training_envs"], VecKeypointNovelty) == learns_with
    assert not isinstance(made["validation_envs"], VecKeypointNovelty)
    assert json.loads((tmp_path / "config.json").read_text())["novelty"] == (novelty or 0)


def test_a_run_of_before_there_was_novelty_goes_on_without(checkpoint, tmp_path):
    settings = {**SHORT, "checkpoint": checkpoint, "out": tmp_path}
    train(TrainConfig(**settings))
    written = json.loads((tmp_path / "config.json").read_text())
    assert written.pop("novelty") == 0
    (tmp_path / "config.json").write_text(json.dumps(written))
    longer = {**settings, "steps": SHORT["steps"] + 10}
    with pytest.raises(ValueError, match=r"other settings \(novelty 0.0, not 0.1\)"):
        train(TrainConfig(**longer, novelty=0.1))
    train(TrainConfig(**longer, novelty=0))
