"""A script written for SB3's DQN does what it did, or is told what differs."""

import inspect
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from counting_env import IMAGE, SMALL, VECTOR, CountingEnv, Noise, make_model, make_vec_env
from device_option import DEVICE
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.save_util import save_to_pkl
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from sb3_permakey import PreviousActionReward, Rainbow, RecurrentDQN, RecurrentQRDQN
from sb3_permakey.common.arguments import updates_between_targets
from sb3_permakey.common.prioritized_buffer import PrioritizedSequenceReplayBuffer
from sb3_permakey.common.sequence_buffer import SequenceReplayBuffer
from sb3_permakey.recurrent_dqn import MlpLstmPolicy

AGENTS = [RecurrentDQN, RecurrentQRDQN]

pytestmark = pytest.mark.usefixtures("one_thread")


def test_names_and_ranges_are_told_in_one_sentence():
    with pytest.raises(AssertionError, match="only supports"):
        RecurrentDQN("MlpLstmPolicy", "Pendulum-v1")
    with pytest.raises(ValueError, match='Policy MlpPolicy unknown to RecurrentDQN: use "MlpLstmPolicy"'):
        make_model(policy="MlpPolicy")
    with pytest.raises(ValueError, match="known are MlpLstmPolicy, CnnLstmPolicy, MultiInputLstmPolicy, "):
        make_model(policy="GruPolicy")
    for name, value, meant in (
        ("batch_size", 0, "at least 1"),
        ("buffer_size", 0, "at least 1"),
        ("learning_starts", -1, "at least 0"),
        ("gradient_steps", -2, "at least -1"),
        ("train_freq", 0, "at least 1"),
        ("tau", 1.5, "from 0 to 1"),
        ("gamma", -0.1, "from 0 to 1"),
        ("exploration_fraction", 0, "positive"),
        ("max_grad_norm", -1, "from 0 to inf"),
    ):
        with pytest.raises(ValueError, match=f"{name} must be {meant}, not {value}"):
            make_model(**{name: value})
    with pytest.raises(ValueError, match="a number of environment steps, or .* for gradient updates, got .5, 'step'"):
        make_model(target_update_interval=(5, "step"))
    with pytest.raises(ValueError, match="cannot count environment steps where train_freq counts episodes"):
        make_model(target_update_interval=5, train_freq=(1, "episode"))
    with pytest.raises(ValueError, match=r"replay_buffer_kwargs must not hold \['gamma', 'n_steps'\]"):
        make_model(replay_buffer_kwargs={"n_steps": 3, "gamma": 0.9})


@pytest.mark.parametrize(
    ("n_envs", "arguments", "updates"),
    [
        (1, {"target_update_interval": 1000}, 250),
        (2, {"target_update_interval": 1000}, 125),
        (2, {"target_update_interval": 1000, "gradient_steps": -1}, 1000),
        (1, {"target_update_interval": 1000, "gradient_steps": 2}, 500),
        (1, {"target_update_interval": 3, "gradient_steps": 1}, 1),
        (1, {"target_update_interval": 1, "gradient_steps": 8}, 1),
        (3, {"target_update_interval": (7, "update")}, 7),
        (1, {"target_update_interval": 50, "train_freq": (1, "episode"), "gradient_steps": -1}, 50),
    ],
)
def test_target_update_interval_counts_environment_steps(n_envs, arguments, updates):
    model = make_model(n_envs, tau=1.0, **arguments)
    assert updates_between_targets(model) == updates


def test_a_target_that_hardly_follows_is_warned_of(recwarn):
    """As of a DQN script with the class renamed, whose tau is DQN's default."""
    with pytest.warns(UserWarning, match="the target network moves 0.5% of the way, and only once in 125 updates"):
        make_model(target_update_interval=500)
    recwarn.clear()
    make_model(target_update_interval=500, tau=1.0)
    make_model()
    assert not [warning for warning in recwarn if "target" in str(warning.message)]


def test_intervals_that_older_agents_counted_in_updates_still_are(tmp_path):
    model = make_model(tau=1.0, target_update_interval=40)
    del model._format
    model.save(tmp_path / "old", exclude=["_format"])
    old = RecurrentDQN.load(tmp_path / "old", device=DEVICE)
    assert updates_between_targets(old) == 40
    old.save(tmp_path / "again")
    assert updates_between_targets(RecurrentDQN.load(tmp_path / "again", device=DEVICE)) == 40
    make_model(tau=1.0, target_update_interval=40).save(tmp_path / "new")
    assert updates_between_targets(RecurrentDQN.load(tmp_path / "new", device=DEVICE)) == 10


def test_training_that_ends_before_learning_starts_is_warned_of():
    """DQN's script of 10,000 steps, whose learning_starts was 100 by default."""
    with pytest.warns(UserWarning, match="learns nothing in these 20 steps: .* first learning_starts=20"):
        model = make_model().learn(20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.learn(20, reset_num_timesteps=False)
    assert model._n_updates > 0


def test_exploration_that_ends_before_learning_starts_is_warned_of():
    """Rainbow's defaults, which are for 100,000 steps, in a shorter training."""
    short = Rainbow("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [16]}, device=DEVICE)
    told = "epsilon is 0 after 84 of these 2100 steps, before learning_starts=2000, .* exploration_fraction than 0.04"
    with pytest.warns(UserWarning, match=told) as warned:
        short.learn(2_100, callback=lambda *_: False)
    assert warned[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        short.learn(2_100, callback=lambda *_: False, reset_num_timesteps=False)
        short.learn(100_000, callback=lambda *_: False)
        # Those that explore to the end, as DQN does, may begin to learn whenever they like.
        make_model(exploration_fraction=0.1, learning_starts=20).learn(100, callback=lambda *_: False)


def test_time_limits_are_true_ends_where_told():
    """The environment's episodes end by a time limit alone."""
    for handled in (True, False):
        env = CountingEnv(VECTOR, length=5, time_limit=True)
        told = {"handle_timeout_termination": handled}
        model = RecurrentDQN("MlpLstmPolicy", env, **SMALL, replay_buffer_kwargs=told).learn(21)
        assert model.replay_buffer._terminated.any() == (not handled)


SPACES = {
    "MultiDiscrete": spaces.MultiDiscrete([3, 4]),
    "MultiBinary": spaces.MultiBinary(4),
    "Discrete": spaces.Discrete(5),
    "int64": spaces.Box(0, 9, (3,), np.int64),
    "float64": spaces.Box(0, 9, (3,), np.float64),
    "float16": spaces.Box(0, 1, (3,), np.float16),
    "bool": spaces.Box(0, 1, (2, 3), bool),
}


@pytest.mark.parametrize("in_dict", [False, True])
@pytest.mark.parametrize("name", SPACES)
def test_observations_of_all_kinds(name, in_dict):
    space = spaces.Dict({"first": SPACES[name], "second": VECTOR}) if in_dict else SPACES[name]
    policy = "MultiInputLstmPolicy" if in_dict else "MlpLstmPolicy"
    model = RecurrentDQN(policy, Noise(space), **SMALL).learn(32)
    assert model._n_updates == 3
    stored = model.replay_buffer._observations.arrays()["first" if in_dict else None]
    assert stored.dtype == SPACES[name].dtype
    kept = [row.reshape(SPACES[name].shape) in SPACES[name] for row in stored[0, :30]]
    assert all(kept)
    action, _ = model.predict(space.sample())
    assert action in model.action_space


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        (spaces.Discrete(5, start=2), "observations must be counted from 0, got Discrete.5, start=2."),
        (spaces.MultiDiscrete([[3, 4], [2, 2]]), "(?s)observations are MultiDiscrete.*no policy can read: .*Flatten"),
        (spaces.Box(0, 1, ()), "observations are Box.*no policy can read"),
        (spaces.Dict({"text": spaces.Text(9), "vector": VECTOR}), "observations 'text' are Text.*FilterObservation"),
    ],
)
def test_observations_that_no_policy_can_read(space, sentence):
    with pytest.raises(ValueError, match=sentence):
        RecurrentDQN("MlpLstmPolicy", Noise(space), **SMALL)


def test_small_images_name_what_flattens_them():
    """MiniGrid's."""
    grid = spaces.Box(0, 255, (7, 7, 3), np.uint8)
    for env, policy in (
        (Noise(grid), "CnnLstmPolicy"),
        (PreviousActionReward(Noise(grid)), "MultiInputLstmPolicy"),
        (Noise(spaces.Dict({"image": grid, "direction": spaces.Discrete(4)})), "MultiInputLstmPolicy"),
    ):
        with pytest.raises(ValueError, match="7x7 are too small for NatureCNN .at least 36x36.: .*FlattenObservation"):
            RecurrentDQN(policy, env, **SMALL)
    flat = PreviousActionReward(gym.wrappers.FlattenObservation(Noise(grid)))
    assert RecurrentDQN("MultiInputLstmPolicy", flat, **SMALL).learn(24)._n_updates > 0
    RecurrentDQN("CnnLstmPolicy", Noise(IMAGE), **SMALL)


class Numpy(BaseFeaturesExtractor):
    """Its features_dim is of numpy."""

    def __init__(self, observation_space):
        super().__init__(observation_space, np.prod(observation_space.shape))

    def forward(self, observations):
        return observations.flatten(1)


@pytest.mark.parametrize("agent", AGENTS)
def test_numbers_of_features_from_numpy(agent):
    policy = {"lstm_hidden_size": 8, "features_extractor_class": Numpy, "net_arch": (np.int64(5),)}
    model = make_model(agent=agent, policy_kwargs=policy).learn(24)
    assert model.q_net.rnn.input_size == 2
    assert model.q_net.head.advantages[0].out_features == 5


@pytest.mark.parametrize("net_arch", [{"pi": [8], "vf": [8]}, [{"pi": [8], "vf": [8]}], 64, "64"])
def test_net_arch_must_be_a_list(net_arch):
    with pytest.raises(ValueError, match=r"net_arch must be a list of layers' units, such as \[64, 64\], got"):
        make_model(policy_kwargs={"net_arch": net_arch})


def test_episode_starts_must_be_of_all_environments():
    model = make_model(2)
    observation = np.zeros((2, 2), np.float32)
    for wrong in ([True], [True] * 3, True):
        with pytest.raises(ValueError, match="episode_start must be of 2 environments"):
            model.predict(observation, episode_start=np.array(wrong))
    model.predict(observation, episode_start=[True, False])
    model.predict(observation[0], episode_start=np.array([True]))


def test_agents_of_another_kind_are_not_loaded(tmp_path):
    for agent in AGENTS:
        make_model(agent=agent).save(tmp_path / agent.__name__)
    DQN("MlpPolicy", CountingEnv(VECTOR), buffer_size=10).save(tmp_path / "DQN")
    with pytest.raises(ValueError, match="Policy of RecurrentDQN is no policy for RecurrentQRDQN: use RecurrentDQN"):
        RecurrentQRDQN.load(tmp_path / "RecurrentDQN")
    with pytest.raises(ValueError, match="Policy of RecurrentQRDQN is no policy for RecurrentDQN: use RecurrentQRDQN"):
        RecurrentDQN.load(tmp_path / "RecurrentQRDQN")
    with pytest.raises(ValueError, match="RecurrentDQN needs a recurrent policy, got DQNPolicy"):
        RecurrentDQN.load(tmp_path / "DQN")
    with pytest.raises(ValueError, match="is no policy for RecurrentQRDQN"):
        make_model(agent=RecurrentQRDQN, policy=MlpLstmPolicy)

    class Own(RecurrentDQN):
        pass

    Own.load(tmp_path / "RecurrentDQN")


def test_an_agent_that_only_plays_needs_no_large_buffer(tmp_path):
    """As RL Zoo's enjoy loads it."""
    model = make_model(2, recurrent_state="stored").learn(40)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    player = RecurrentDQN.load(tmp_path / "model", env=make_vec_env(2), device=DEVICE, buffer_size=1)
    observation = player.get_env().reset()
    np.testing.assert_array_equal(
        player.predict(observation, deterministic=True)[0], model.predict(observation, deterministic=True)[0]
    )
    assert player.replay_buffer._observations.arrays()[None].shape[:2] == (2, 7)
    with pytest.raises(ValueError, match="loaded with buffer_size=1, which does to play: to learn, load"):
        player.learn(20)
    player.load_replay_buffer(tmp_path / "buffer")
    player.learn(20, reset_num_timesteps=False)
    assert player.num_timesteps == 64
    with pytest.raises(ValueError, match="one window needs 7"):
        make_model(buffer_size=1)


@pytest.mark.parametrize(
    ("saved", "loading", "sentence"),
    [
        ({"n_envs": 2}, {}, "it is for 2 environments, not 1"),
        ({}, {"prioritized_replay": True}, "it is a Sequence.*, needed is a PrioritizedSequenceReplayBuffer"),
        ({"prioritized_replay": True}, {}, "it has priorities, and the agent draws uniformly"),
        ({}, {"recurrent_state": "stored"}, r"it has no recurrent states, needed are \(2, 1, 8\)"),
        (
            {"recurrent_state": "stored"},
            {"recurrent_state": "stored", "policy_kwargs": {"lstm_hidden_size": 4}},
            r"its states are \(2, 1, 8\), needed are \(2, 1, 4\)",
        ),
        ({"buffer_size": 20}, {"sequence_length": 30}, "it has 20 places an environment, a window needs 33"),
        ({"space": spaces.Box(-1, 9, (3,))}, {}, "its observation_space is Box.*not Box"),
    ],
)
def test_replay_buffers_that_do_not_fit_are_refused(saved, loading, sentence, tmp_path):
    make_model(**saved).learn(21).save_replay_buffer(tmp_path / "buffer")
    model = make_model(**loading)
    before = model.replay_buffer
    with pytest.raises(ValueError, match=f"does not fit this RecurrentDQN: {sentence}"):
        model.load_replay_buffer(tmp_path / "buffer")
    assert model.replay_buffer is before
    model.learn(24)


def test_rainbow_is_told_the_same(tmp_path):
    """Its policies are named as DQN's, its buffer is of transitions, and its arguments mean the same."""
    few = {name: SMALL[name] for name in ("learning_starts", "buffer_size", "batch_size", "device", "seed")}
    with pytest.raises(ValueError, match='Policy MlpLstmPolicy unknown to Rainbow: use "MlpPolicy"'):
        Rainbow("MlpLstmPolicy", make_vec_env(1), **few)
    with pytest.raises(ValueError, match="MultiInputPolicy needs Dict observations, .*: use MlpPolicy or CnnPolicy"):
        Rainbow("MultiInputPolicy", make_vec_env(1), **few)
    make_model().save(tmp_path / "other")
    with pytest.raises(ValueError, match="is no policy for Rainbow: use RecurrentDQN"):
        Rainbow.load(tmp_path / "other")
    model = Rainbow("MlpPolicy", make_vec_env(1), **few).learn(30)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    player = Rainbow.load(tmp_path / "model", buffer_size=1)
    assert player.predict(np.zeros(2, np.float32))[0] in model.action_space
    make_model(prioritized_replay=True).learn(30).save_replay_buffer(tmp_path / "windows")
    with pytest.raises(ValueError, match="it is a Prioritized.*, needed is a PrioritizedReplayBuffer"):
        model.load_replay_buffer(tmp_path / "windows")
    model.load_replay_buffer(tmp_path / "buffer")
    model.learn(8, reset_num_timesteps=False)
    every_update = Rainbow("MlpPolicy", make_vec_env(1), **few, tau=1.0, target_update_interval=100)
    assert updates_between_targets(every_update) == 200


def test_a_replay_buffer_of_sb3_is_refused(tmp_path):
    save_to_pkl(tmp_path / "buffer.pkl", ReplayBuffer(10, VECTOR, spaces.Discrete(3)))
    with pytest.raises(ValueError, match="it is a ReplayBuffer, not a SequenceReplayBuffer"):
        make_model().load_replay_buffer(tmp_path / "buffer.pkl")


def test_states_that_an_agent_does_not_use_are_left_out(tmp_path):
    make_model(recurrent_state="stored").learn(21).save_replay_buffer(tmp_path / "buffer")
    model = make_model()
    model.load_replay_buffer(tmp_path / "buffer")
    assert model.replay_buffer.sample(4).states is None
    model.learn(24)


def test_a_loaded_buffer_draws_by_the_agents_exponents(tmp_path):
    saved = make_model(prioritized_replay=True, priority_alpha=0.5).learn(41)
    saved.save_replay_buffer(tmp_path / "buffer")
    model = make_model(prioritized_replay=True, priority_alpha=1.0, priority_beta=0.3)
    model.load_replay_buffer(tmp_path / "buffer")
    every = np.arange(200)
    before, after = (buffer._tree.weights(every) for buffer in (saved.replay_buffer, model.replay_buffer))
    np.testing.assert_allclose(after, before**2, rtol=1e-6)
    assert (model.replay_buffer.alpha, model.replay_buffer.beta) == (1.0, 0.3)
    assert isinstance(model.replay_buffer, PrioritizedSequenceReplayBuffer)
    assert isinstance(model.replay_buffer, SequenceReplayBuffer)


def test_the_documented_differences_from_dqn_are_all():
    """Each shared argument with another default has a row in docs/recurrent_agents.md, with both."""
    page = (Path(__file__).parents[2] / "docs" / "recurrent_agents.md").read_text()
    table = page.split("### Coming from DQN")[1].split("\n\n")[2].replace(",", "").splitlines()
    rows = {names: cells for _, names, *cells, _ in (row.split("|") for row in table)}
    ours, theirs = (inspect.signature(agent).parameters for agent in (RecurrentDQN, DQN))
    for name in [name for name in theirs if name not in ("policy", "env", "policy_kwargs")]:
        default = ours[name].default
        cells = next((cells for names, cells in rows.items() if f"`{name}`" in names), None)
        assert (cells is None) == (default == theirs[name].default), name
        if cells:
            for cell, value in zip(cells, (default, theirs[name].default), strict=True):
                assert any(float(word.rstrip(":")) == value for word in cell.split() if word[0].isdigit()), name
