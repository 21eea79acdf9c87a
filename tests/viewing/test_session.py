import numpy as np
import pytest
import torch
from conftest import CATCHING, NUM_KEYPOINTS, PEAKS
from sb3_contrib import QRDQN
from stable_baselines3 import DQN, PPO

from sb3_permakey.envs.named import NamedEnvironment
from sb3_permakey.keypoints import PermaKey, PermaKeyConfig, ReadoutConfig, save_checkpoint
from sb3_permakey.play.action_values import action_values
from sb3_permakey.play.saved_agents import AgentFileError, FrameAgent
from sb3_permakey.scores import FrameObjects, GroundTruthError
from sb3_permakey.viewing.running_score import RunningScore
from sb3_permakey.viewing.session import Look, Side, ViewSettings, action_of_keys

SMALL = {"policy_kwargs": {"net_arch": [8]}}
ATARI = ["NOOP", "FIRE", "UP", "RIGHT", "LEFT", "DOWN", "UPRIGHT", "UPLEFT", "UPRIGHTFIRE"]


@pytest.fixture
def other_checkpoint(tmp_path):
    torch.manual_seed(1)
    return save_checkpoint(PermaKey(PermaKeyConfig(num_keypoints=NUM_KEYPOINTS)), tmp_path / "other.safetensors")


def test_the_same_settings_show_the_same(open_view):
    def played(seed: int) -> list[Look]:
        session = open_view(seed=seed)
        return [session.look, *(session.step("random") for _ in range(12))]

    assert any(not np.array_equal(one.frame, other.frame) for one, other in zip(played(3), played(4), strict=True))
    for one, other in zip(played(3), played(3), strict=True):
        assert np.array_equal(one.frame, other.frame)
        assert (one.episode, one.step, one.score, one.action) == (other.episode, other.step, other.score, other.action)
        for side, other_side in zip(one.sides, other.sides, strict=True):
            assert np.array_equal(side.centers, other_side.centers)


def test_an_episode_follows_another_and_a_reset_begins_anew(open_view):
    session = open_view()
    first = session.look
    looks = [session.step("keys", ["2"]) for _ in range(8)]
    assert [look.is_over for look in looks] == [False] * 6 + [True, False]
    assert [look.step for look in looks] == [1, 2, 3, 4, 5, 6, 7, 0]
    assert abs(looks[6].score) == 1
    assert (looks[7].episode, looks[7].score, looks[7].action) == (1, 0.0, None)
    again = session.reset()
    assert np.array_equal(again.frame, first.frame)
    assert (again.episode, again.step) == (0, 0)


def test_sides_see_the_same_frame_by_their_readouts(open_view):
    look = open_view().look
    assert look.frame.shape == (84, 84, 3)
    assert [side.centers.shape for side in look.sides] == [(3, 2), (NUM_KEYPOINTS, 2)]
    assert [side.title for side in look.sides] == ["square, peaks, K = 3", f"square, pointnet, K = {NUM_KEYPOINTS}"]
    assert look.sides[0].confidence.shape == (3,)
    assert look.sides[1].confidence is None


@pytest.mark.parametrize(
    ("keys", "action"),
    [
        ([], "NOOP"),
        (["ArrowUp"], "UP"),
        (["w", "d"], "UPRIGHT"),
        (["ArrowUp", "ArrowRight", " "], "UPRIGHTFIRE"),
        (["ArrowDown", "ArrowRight"], "RIGHT"),  # there is no such diagonal
        (["ArrowUp", " "], "FIRE"),  # the first of two that use one key
        (["x"], "NOOP"),
        (["ArrowUp", "4"], "LEFT"),  # by its number
    ],
)
def test_keys_stand_for_actions(keys, action):
    assert ATARI[action_of_keys(keys, ATARI)] == action


def test_keys_of_actions_without_names():
    names = ["action 0", "action 1"]
    assert [action_of_keys(keys, names) for keys in ([], ["1"], ["7"], ["ArrowUp"])] == [0, 1, 0, 0]


def test_the_running_score_by_hand():
    boxes = np.array([[10.0, 10.0, 14.0, 14.0], [60.0, 60.0, 64.0, 64.0]])
    objects = FrameObjects(boxes, ("A", "B"), ("A 0", "B 0"), np.zeros(2, bool))
    on_the_first = 2 * (np.array([12.0, 12.0]) - 0.5) / 83 - 1
    running = RunningScore()
    running.add(np.stack([on_the_first, [1.0, -1.0], [1.0, 1.0]]), objects)
    assert running.scores() == pytest.approx({"precision": 1 / 3, "recall": 1 / 2, "f1": 2 / 5})
    running.add(np.stack([on_the_first] * 3), objects)
    assert running.scores() == pytest.approx({"precision": 4 / 6, "recall": 2 / 4, "f1": 4 / 7})


def test_true_objects_of_a_game(open_view, checkpoint, monkeypatch):
    pytest.importorskip("ocatari")
    session = open_view(environment=NamedEnvironment("MsPacman"), sides=(Side(str(checkpoint)),))
    look = session.step("keys", ["ArrowLeft"])
    assert look.action == "LEFT"
    assert "Player" in look.objects.categories
    assert session.running[0].frames == 2
    assert set(look.sides[0].scores) == {"f1", "precision", "recall"}
    assert session.notes == []

    def fail():
        raise GroundTruthError("no")

    monkeypatch.setattr(session.truth, "objects", fail)
    look = session.step("random")
    assert look.objects is None
    assert session.running[0].frames == 2


def test_why_there_are_no_true_objects_is_told(open_view):
    assert open_view().notes == ["no true boxes: OCAtari tells the objects of Atari games alone"]


def test_a_recurrent_agents_values_are_those_it_chooses_by(open_view, save_agent):
    session = open_view(agent=save_agent())
    for _ in range(5):
        look = session.look
        assert look.agent.values.shape == (3,)
        assert look.agent.values.argmax() == look.agent.choice
        assert np.array_equal(look.agent.centers, look.sides[0].centers)
        assert look.agent.attention is None
        assert session.step("agent").action == f"action {look.agent.choice}"


def test_values_of_a_memory_depend_on_what_it_remembers(save_agent, checkpoint):
    agent = FrameAgent(save_agent(), checkpoint)
    assert action_values(agent) is None
    frames = np.random.default_rng(0).integers(255, size=(2, 84, 84, 3), dtype=np.uint8)
    agent.act(frames[:1], np.array([True]))
    agent.act(frames[1:], np.array([False]))
    remembering = action_values(agent)
    agent.act(frames[1:], np.array([True]))
    assert not np.array_equal(action_values(agent), remembering)


@pytest.mark.parametrize("algorithm", [DQN, QRDQN])
def test_values_of_other_agents(save_agent, checkpoint, algorithm):
    agent = FrameAgent(save_agent(algorithm, "MultiInputPolicy", buffer_size=10, **SMALL), checkpoint)
    frames = np.random.default_rng(0).integers(255, size=(2, 84, 84, 3), dtype=np.uint8)
    actions = agent.act(frames, np.array([True, True]))
    assert action_values(agent).shape == (2, 3)
    assert action_values(agent).argmax(axis=1).tolist() == actions.tolist()
    assert agent.attention is None


def test_an_agent_without_values(open_view, save_agent):
    session = open_view(agent=save_agent(PPO, "MultiInputPolicy", n_steps=4, batch_size=4, **SMALL))
    assert session.look.agent.values is None
    assert session.step("agent").agent is not None


def test_where_an_encoder_looks(open_view, save_agent):
    from two_queries import TwoQueries

    session = open_view(agent=save_agent(policy_kwargs={"features_extractor_class": TwoQueries}))
    weights = session.look.agent.attention
    assert np.allclose(weights, [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3]])


def test_an_agent_sees_the_checkpoint_that_fits_it(open_view, save_agent, checkpoint, other_checkpoint):
    agent = save_agent()
    both = (Side(str(other_checkpoint)), Side(str(checkpoint)))
    assert open_view(agent=agent, sides=both).look.agent.centers.shape == (3, 2)
    with pytest.raises(AgentFileError, match=r"learned from other keypoints than .*other\.safetensors makes: model"):
        open_view(agent=agent, sides=both[:1])


def test_what_cannot_be_viewed_is_told(open_view, checkpoint, tmp_path):
    for settings, sentence in (
        ({"environment": NamedEnvironment("MsPackman")}, "the nearest name is 'MsPacman'"),
        ({"environment": NamedEnvironment(env="catching:Nothing")}, "the module catching has no function 'Nothing'"),
        ({"environment": NamedEnvironment(env="catching_otherwise:make_continuous")}, "has continuous actions"),
        ({"agent": tmp_path / "none.zip"}, "no saved agent at"),
        ({"sides": (Side("nowhere.safetensors"),)}, "no keypoint checkpoint at nowhere.safetensors"),
        ({"sides": (Side(str(checkpoint), ReadoutConfig(num_keypoints=9)),)}, "has a PointNet of 4 keypoints, not 9"),
    ):
        with pytest.raises(ValueError, match=sentence):
            open_view(**settings)
    with pytest.raises(ValueError, match="no agent is open"):
        open_view().step("agent")
    with pytest.raises(ValueError, match="player must be one of random, agent, keys, not 'nobody'"):
        open_view().step("nobody")


def test_settings_that_cannot_be():
    environment, side = NamedEnvironment(env=CATCHING), Side("mspacman", PEAKS)
    for settings, sentence in (
        ({"sides": ()}, "sides must be from 1 to 2, not 0"),
        ({"sides": (side,) * 3}, "sides must be from 1 to 2, not 3"),
        ({"sides": (side,), "distractor": "diagonal"}, "distractor must be one of"),
        ({"sides": (side,), "seed": -1}, "seed must be from 0"),
    ):
        with pytest.raises(ValueError, match=sentence):
            ViewSettings(environment, **settings)
