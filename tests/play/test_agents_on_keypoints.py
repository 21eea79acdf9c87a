import numpy as np
import pytest
import torch
from conftest import NUM_KEYPOINTS, MovingSquare
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_permakey import (
    PermaKeyObservation,
    PreviousActionReward,
    RecurrentDQN,
    VecPermaKeyObservation,
)
from sb3_permakey.envs.atari import make_atari_env
from sb3_permakey.keypoints import PermaKey, PermaKeyConfig, save_checkpoint
from sb3_permakey.play.saved_agents import AgentFileError, FrameAgent


@pytest.fixture(scope="module")
def other_checkpoint(tmp_path_factory):
    """A checkpoint of another model of the same shapes."""
    torch.manual_seed(1)
    model = PermaKey(PermaKeyConfig(num_keypoints=NUM_KEYPOINTS))
    return save_checkpoint(model, tmp_path_factory.mktemp("other") / "other.safetensors")


def keypoint_agent(checkpoint, path, **settings):
    env = PermaKeyObservation(MovingSquare(), checkpoint, **settings)
    agent = RecurrentDQN("PermaKeyPolicy", env, buffer_size=20, policy_kwargs={"lstm_hidden_size": 4})
    agent.save(path)
    return agent


def test_an_agent_is_refused_keypoints_that_it_did_not_learn_from(checkpoint, other_checkpoint, tmp_path):
    path = tmp_path / "agent.zip"
    keypoint_agent(checkpoint, path, readout="peaks", surround_px=18)
    assert FrameAgent(path, checkpoint).detector.readout.surround_px == 18
    message = (
        f"agent.zip learned from other keypoints than {other_checkpoint} makes: model [0-9a-f]{{12}}, not [0-9a-f]"
    )
    with pytest.raises(AgentFileError, match=message):
        FrameAgent(path, other_checkpoint)

    def load(env):
        return RecurrentDQN.load(path, env=env)

    same = {"readout": "peaks", "surround_px": 18}
    assert load(PermaKeyObservation(MovingSquare(), checkpoint, **same)).num_timesteps == 0
    vec = VecPermaKeyObservation(DummyVecEnv([MovingSquare]), checkpoint, **same)
    assert load(vec).env.observation_space.fingerprint == vec.observation_space.fingerprint
    for source, settings in (
        (other_checkpoint, same),
        (checkpoint, {"readout": "peaks"}),
        (checkpoint, {**same, "num_keypoints": 3}),
    ):
        with pytest.raises(ValueError, match="Observation spaces do not match: .*surround_px 18.* != .*model"):
            load(PermaKeyObservation(MovingSquare(), source, **settings))


@pytest.mark.parametrize("name", ["mspacman", "mspacman-teacher"])
def test_an_agent_of_the_packages_own_keypoints_finds_them(name, tmp_path):
    env = PermaKeyObservation(make_atari_env("MsPacman"), name)
    RecurrentDQN("PermaKeyPolicy", env, buffer_size=100).save(tmp_path / "agent.zip")
    player = FrameAgent(tmp_path / "agent.zip", None)
    assert player.detector.source == name
    assert player.detector.readout.readout == ("pointnet" if name.endswith("teacher") else "peaks")
    frames = np.zeros((1, 84, 84, 3), np.uint8)
    np.testing.assert_array_equal(
        player.act(frames, np.ones(1, bool)), FrameAgent(tmp_path / "agent.zip", name).act(frames, np.ones(1, bool))
    )


def test_an_agent_that_learned_from_a_teacher_says_so_where_its_student_is_given(tmp_path):
    env = PermaKeyObservation(make_atari_env("MsPacman"), "mspacman-teacher", readout="peaks")
    RecurrentDQN("PermaKeyPolicy", env, buffer_size=100).save(tmp_path / "agent.zip")
    message = "learned from other keypoints than mspacman makes: model .*; they are those of mspacman-teacher$"
    with pytest.raises(AgentFileError, match=message):
        FrameAgent(tmp_path / "agent.zip", "mspacman")


def test_an_agent_that_does_not_say_what_made_its_keypoints_plays_with_any(checkpoint, other_checkpoint, tmp_path):
    agent = keypoint_agent(checkpoint, tmp_path / "agent.zip")
    del agent.observation_space.fingerprint  # as in files of the release before
    agent.save(tmp_path / "agent.zip")
    assert FrameAgent(tmp_path / "agent.zip", other_checkpoint).agent.observation_space.fingerprint is None
    assert RecurrentDQN.load(tmp_path / "agent.zip", env=PermaKeyObservation(MovingSquare(), other_checkpoint))


def test_observations_of_other_entries_or_shapes_are_named(checkpoint, tmp_path):
    agent = keypoint_agent(checkpoint, tmp_path / "agent.zip")
    for settings, message in (
        ({"readout": "peaks"}, "observes features, keypoints, but the observation has confidence, features, keypoints"),
        ({"history": 2}, "observes features, keypoints, but the observation has features, keypoints, motion"),
    ):
        with pytest.raises(ValueError, match=message):
            agent.predict(PermaKeyObservation(MovingSquare(), checkpoint, **settings).reset()[0])
    observation = PermaKeyObservation(MovingSquare(), checkpoint).reset()[0]
    agent.predict(observation)
    for key in observation:
        other = {**observation, key: np.concatenate([observation[key]] * 2)}
        stacked = {name: np.stack([part] * 3) for name, part in other.items()}
        for one in (other, stacked):
            with pytest.raises(ValueError, match=rf"observes {key} of shape \(4, .*but the observation has .*8, "):
                agent.predict(one)
    with pytest.raises(ValueError, match="observes Box.*, but the observation has features, keypoints"):
        RecurrentDQN("CnnLstmPolicy", MovingSquare(), buffer_size=20).predict(observation)


def test_the_previous_step_does_not_hide_what_made_the_keypoints(checkpoint, other_checkpoint):
    spaces_of = [
        PreviousActionReward(PermaKeyObservation(MovingSquare(), source)).observation_space
        for source in (checkpoint, checkpoint, other_checkpoint)
    ]
    assert spaces_of[0] == spaces_of[1]
    assert spaces_of[0] != spaces_of[2]


@pytest.mark.parametrize("acts_with_target", [False, True])
def test_where_an_agent_looks_is_what_its_acting_network_weighs(acts_with_target, checkpoint, tmp_path):
    env = PermaKeyObservation(MovingSquare(), checkpoint, readout="peaks", num_keypoints=5, history=1)
    policy = {"keypoint_encoder": "attention", "act_with_target": acts_with_target}
    agent = RecurrentDQN("PermaKeyPolicy", env, policy_kwargs=policy, learning_starts=10, seed=0)
    agent.learn(30)
    agent.save(tmp_path / "agent.zip")
    player = FrameAgent(tmp_path / "agent.zip", checkpoint)
    observation, _ = env.reset(seed=0)
    frames = env.unwrapped._frame()[None]
    player.act(frames, np.array([True]))
    [look] = player.looks(player.observed)
    np.testing.assert_allclose(look.centers, observation["keypoints"], atol=1e-5)
    expected = {}
    for name, net in (("online", agent.q_net), ("target", agent.q_net_target)):
        tensors = {key: torch.as_tensor(part[None]) for key, part in observation.items()}
        expected[name] = net.features_extractor.attention(tensors)[0].detach().numpy()
    assert np.abs(expected["online"] - expected["target"]).max() > 1e-5
    np.testing.assert_allclose(look.weights, expected["target" if acts_with_target else "online"], atol=2e-6)


def test_other_encoders_have_no_attention_to_be_drawn(checkpoint, tmp_path):
    env = PermaKeyObservation(MovingSquare(), checkpoint)
    RecurrentDQN("PermaKeyPolicy", env, buffer_size=100).save(tmp_path / "agent.zip")
    player = FrameAgent(tmp_path / "agent.zip", checkpoint)
    assert player.attention is None
    with pytest.raises(AgentFileError, match="its encoder is not KeypointAttention"):
        player.looks({})
