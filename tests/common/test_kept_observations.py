"""Observations on the device that learns: the same batches as from the host's memory, and what moves for them."""

import pickle

import numpy as np
import pytest
import torch
from counting_env import KEYPOINTS, MIXED, SMALL, make_vec_env
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecNormalize

from benchmarks.speed.operations import Operations
from sb3_permakey import Rainbow, RecurrentDQN
from sb3_permakey.common import kept_observations
from sb3_permakey.common.kept_observations import DeviceObservations, HostObservations
from sb3_permakey.common.prioritized_buffer import PrioritizedSequenceReplayBuffer
from sb3_permakey.common.run_checkpoint import load_run, save_run
from sb3_permakey.common.sequence_buffer import SequenceReplayBuffer
from sb3_permakey.common.transition_buffer import PrioritizedReplayBuffer
from sb3_permakey.keypoints.captured import tensors_of

ENVS = 2
SPACES = {
    "keypoints": KEYPOINTS,
    "frames beside numbers": MIXED,
    "float64": spaces.Box(-9, 9, (3,), np.float64),
    "a type that torch does not gather": spaces.Box(0, 60000, (2, 3), np.uint16),
    "a number": spaces.Discrete(50),
}
BUFFERS = {
    "windows": (SequenceReplayBuffer, {"sequence_length": 4, "burn_in": 3}, lambda buffer: buffer.sample(30)),
    "windows by priority": (PrioritizedSequenceReplayBuffer, {"sequence_length": 4}, lambda buffer: buffer.sample(30)),
    "transitions": (PrioritizedReplayBuffer, {}, lambda buffer: buffer.sample_transitions(30, 3, 0.9)),
}
NO_WINDOWS = {name: value for name, value in SMALL.items() if name not in ("sequence_length", "policy_kwargs")}


@pytest.fixture
def on_device(monkeypatch):
    """A CPU keeps observations as if it were a GPU."""
    monkeypatch.setattr(kept_observations, "_keeps_on_device", lambda place, *rest: str(place) != "cpu")


def filled(kind, space, replay_device="cpu", steps=90, **kwargs):
    """A buffer of random episodes, more of them than it holds."""
    buffer = kind(80, space, spaces.Discrete(3), device="cpu", n_envs=ENVS, **kwargs)
    buffer.keep_observations(replay_device)
    space.seed(0)
    rng = np.random.default_rng(0)

    def observe():
        drawn = [space.sample() for _ in range(ENVS)]
        if isinstance(space, spaces.Dict):
            return {key: np.stack([part[key] for part in drawn]) for key in space.spaces}
        return np.stack(drawn)

    before = observe()
    for _ in range(steps):
        after, done = observe(), rng.random(ENVS) < 0.1
        buffer.add(before, after, rng.integers(3, size=ENVS), rng.random(ENVS), done, [{}] * ENVS)
        # An episode that ended is followed by other observations, one that did not by its own.
        before = mixed(done, observe(), after)
    return buffer


def mixed(chosen, one, other):
    """Of each environment the one observation where it is chosen, else the other."""
    if isinstance(one, dict):
        return {key: mixed(chosen, one[key], other[key]) for key in one}
    return np.where(chosen.reshape(-1, *[1] * (one.ndim - 1)), one, other)


def assert_same_batches(draw, *buffers):
    batches = []
    for buffer in buffers:
        np.random.seed(0)
        batches.append(tensors_of(draw(buffer)))
    for one, other in zip(*batches, strict=True):
        assert one.dtype == other.dtype
        assert one.is_contiguous() == other.is_contiguous()
        assert torch.equal(one, other)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("kind", BUFFERS)
def test_batches_are_the_same_to_the_bit(kind, space, on_device):
    buffer_class, kwargs, draw = BUFFERS[kind]
    host, device = (filled(buffer_class, SPACES[space], place, **kwargs) for place in ("cpu", "there"))
    assert isinstance(host._observations, HostObservations)
    assert isinstance(device._observations, DeviceObservations)
    assert_same_batches(draw, host, device)
    device.keep_observations("cpu")
    assert_same_batches(draw, host, device)


def test_only_slots_go_to_the_device(on_device):
    buffer = filled(PrioritizedReplayBuffer, KEYPOINTS, "there")
    asked = buffer._observations.asked(np.array([[3, 9], [4, 10]]), None)
    assert [array.tolist() for array in asked.values()] == [[[3, 9], [4, 10]]]


def test_what_is_stored_goes_on_elsewhere(on_device):
    """Contents and pickles are the same wherever observations are kept."""
    kwargs = {"sequence_length": 4, "burn_in": 3}
    host, device = (filled(SequenceReplayBuffer, MIXED, place, **kwargs) for place in ("cpu", "there"))
    for name, array in device.contents().items():
        np.testing.assert_array_equal(array, host.contents()[name], strict=True)
    fresh = filled(SequenceReplayBuffer, MIXED, "there", steps=0, **kwargs)
    fresh.restore(host.contents())
    unpickled = pickle.loads(pickle.dumps(device))
    assert isinstance(unpickled._observations, HostObservations)
    for buffer in (fresh, unpickled):
        assert_same_batches(lambda buffer: buffer.sample(30), host, buffer)
    slots = fresh._newest_slots
    for key, part in host._observations.newest(slots).items():
        np.testing.assert_array_equal(fresh._observations.newest(slots)[key], part, strict=True)


def test_an_agent_learns_the_same_and_goes_on(on_device, tmp_path, one_thread):
    def learned(place):
        return Rainbow("PermaKeyPolicy", make_vec_env(2, KEYPOINTS), **NO_WINDOWS, replay_device=place).learn(60)

    host, device = learned("cpu"), learned("there")
    torch.testing.assert_close(device.policy.state_dict(), host.policy.state_dict(), rtol=0, atol=0)
    save_run(device, tmp_path / "run")
    device.save_replay_buffer(tmp_path / "buffer.pkl")
    resumed = load_run(Rainbow, tmp_path / "run", make_vec_env(2, KEYPOINTS), device="cpu")
    other = learned("there")
    other.load_replay_buffer(tmp_path / "buffer.pkl")
    for agent in (resumed, other):
        assert isinstance(agent.replay_buffer._observations, DeviceObservations)
        assert_same_batches(BUFFERS["transitions"][-1], host.replay_buffer, agent.replay_buffer)


def test_an_update_and_a_stored_step_copy_once():
    with Operations():
        agent = RecurrentDQN(
            "PermaKeyPolicy", make_vec_env(2, KEYPOINTS), **{**SMALL, "device": "meta"}, burn_in=2, replay_device="meta"
        ).learn(30)
        buffer, observation = agent.replay_buffer, agent.env.reset()
        buffer.close_episodes()
        buffer.add(observation, observation, np.zeros(2), np.zeros(2), np.zeros(2), [{}] * 2)
    with Operations() as update:
        agent.train(1, agent.batch_size)
    with Operations() as stored:
        buffer.add(observation, observation, np.zeros(2), np.zeros(2), np.zeros(2), [{}] * 2)
    for operations in (update, stored):
        assert (operations.counts["to device"], operations.counts["to host"]) == (1, 0)
        assert operations.counts["numbers read"] == operations.counts["shapes read"] == 0


GPU = torch.device("cuda", 0)
GB = 10**9


def keeps(replay_device, device=GPU, needed=GB, free=4 * GB, normalized=False):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_observations, "free_bytes", lambda device: free if device.type == "cuda" else None)
        return kept_observations._keeps_on_device(replay_device, device, needed, normalized)


def test_where_observations_are_kept():
    assert keeps("cuda")
    assert keeps("cuda:0")
    assert keeps(GPU)
    assert keeps("auto", needed=2 * GB)
    assert not keeps("auto", needed=2 * GB + 1)
    assert not keeps("auto", normalized=True)
    assert not keeps("cpu")
    for replay_device in ("auto", "cpu", "cuda"):
        assert not keeps(replay_device, torch.device("cpu"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"replay_device": "gup"}, "replay_device must be 'cpu', 'auto' or the agent's device, cuda:0, not 'gup'"),
        ({"replay_device": "cuda:1"}, "the agent's device, cuda:0, not 'cuda:1'"),
        ({"replay_device": "mps"}, "the agent's device, cuda:0, not 'mps'"),
        ({"replay_device": "cuda", "normalized": True}, "must be 'cpu' where VecNormalize normalises observations"),
        ({"replay_device": "cuda", "needed": 5 * GB}, r"take 5\.0 GB and cuda:0 has 4\.0 GB free: choose a smaller"),
    ],
)
def test_a_place_that_will_not_do_is_told(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        keeps(**arguments)


def test_an_agent_tells_before_anything_is_stored():
    with pytest.raises(ValueError, match="replay_device must be"):
        RecurrentDQN("MlpLstmPolicy", make_vec_env(1), **SMALL, replay_device="gup")
    meta = {**SMALL, "device": "meta", "replay_device": "meta"}
    with Operations(), pytest.raises(ValueError, match="where VecNormalize normalises observations"):
        RecurrentDQN("MlpLstmPolicy", VecNormalize(make_vec_env(1)), **meta)
    with Operations():
        agent = RecurrentDQN("MlpLstmPolicy", VecNormalize(make_vec_env(1), norm_obs=False), **meta).learn(30)
    # Told, too, where the environments came later.
    with pytest.raises(ValueError, match="where VecNormalize normalises observations"):
        agent.replay_buffer.sample(4, env=VecNormalize(make_vec_env(1)))
