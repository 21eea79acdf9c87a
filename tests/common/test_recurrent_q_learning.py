import numpy as np
import pytest
import torch
from counting_env import (
    IMAGE,
    KEYPOINTS,
    MIXED,
    SMALL,
    VECTOR,
    CountingEnv,
    check_counting_windows,
    make_model,
    make_vec_env,
)
from device_option import DEVICE
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from sb3_permakey.common.presets import R2D2
from sb3_permakey.common.sequence_buffer import SequenceReplayBuffer
from sb3_permakey.common.targets import unscale_values
from sb3_permakey.recurrent_dqn import RecurrentDQN
from sb3_permakey.recurrent_qrdqn import RecurrentQRDQN

EVERYTHING = {
    "burn_in": 2,
    "recurrent_state": "stored",
    "prioritized_replay": True,
    "value_rescaling": True,
    "policy_kwargs": {"lstm_hidden_size": 8, "n_lstm_layers": 2, "rnn_type": "gru", "dueling": True, "net_arch": [8]},
}
AGENTS = [RecurrentDQN, RecurrentQRDQN]


pytestmark = pytest.mark.usefixtures("one_thread")


def parameters(model):
    return torch.cat([p.detach().flatten() for p in model.policy.state_dict().values()])


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize(("n_envs", "options"), [(1, {}), (2, EVERYTHING), (3, {})])
@pytest.mark.parametrize(
    ("policy", "space"),
    [
        ("MlpLstmPolicy", VECTOR),
        ("MlpLstmPolicy", spaces.Discrete(20)),
        ("CnnLstmPolicy", IMAGE),
        ("MultiInputLstmPolicy", MIXED),
        ("PermaKeyPolicy", KEYPOINTS),
    ],
)
def test_learns_saves_and_loads(agent, policy, space, n_envs, options, tmp_path):
    model = make_model(n_envs, space, policy, agent, **options).learn(60)
    assert model._n_updates > 3
    model.save(tmp_path / "model")
    loaded = agent.load(tmp_path / "model", env=make_vec_env(n_envs, space), device=DEVICE)
    assert torch.equal(parameters(loaded), parameters(model))
    obs = model.env.reset()
    state = loaded_state = None
    for _ in range(4):
        actions, state = model.predict(obs, state, deterministic=True)
        loaded_actions, loaded_state = loaded.predict(obs, loaded_state, deterministic=True)
        np.testing.assert_array_equal(actions, loaded_actions)
        np.testing.assert_array_equal(np.stack(state), np.stack(loaded_state))
    loaded.learn(30, reset_num_timesteps=False)
    assert loaded.num_timesteps >= 90
    assert loaded._n_updates > model._n_updates


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("options", [{}, EVERYTHING])
def test_same_seed_same_run(agent, options):
    runs = [make_model(2, agent=agent, seed=seed, **options).learn(100) for seed in (3, 3, 4)]
    assert torch.equal(parameters(runs[0]), parameters(runs[1]))
    assert not torch.equal(parameters(runs[0]), parameters(runs[2]))
    assert np.array_equal(runs[0].replay_buffer.actions, runs[1].replay_buffer.actions)


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("option", ["double_q", "prioritized_replay", "value_rescaling", "burn_in", "recurrent_state"])
def test_every_option_makes_a_difference(agent, option):
    changed = {"double_q": False, "burn_in": 2, "recurrent_state": "stored"}.get(option, True)
    runs = [make_model(agent=agent, learning_rate=0.01, **kwargs).learn(200) for kwargs in ({}, {option: changed})]
    assert not torch.equal(parameters(runs[0]), parameters(runs[1]))


def test_learn_logs_and_explores_as_told():
    model = make_model(exploration_fraction=0.5, exploration_initial_eps=0.8, exploration_final_eps=0.2)
    seen = {}

    class Watch(BaseCallback):
        def _on_step(self):
            seen.setdefault(self.num_timesteps, dict(self.logger.name_to_value))
            return True

    model.learn(100, Watch(), log_interval=1000)
    assert seen[26]["rollout/exploration_rate"] == pytest.approx(0.8 - 0.6 * 25 / 50)
    assert model.exploration_rate == pytest.approx(0.2)
    logged = seen[100]
    assert {"train/loss", "train/td_error", "train/q_mean", "train/grad_norm", "train/n_updates"} <= set(logged)
    assert all(np.isfinite(value) for value in logged.values())


def test_learning_again_without_a_reset_goes_on_where_it_was():
    model = make_model().learn(33)
    assert model.num_timesteps == 36  # train_freq=4
    assert model.replay_buffer._running_first.tolist() == [42]  # 7 episodes of 5 steps and 6 states are over
    model.learn(20, reset_num_timesteps=False)
    assert model.replay_buffer.size() == 56
    assert model.replay_buffer._running_first.tolist() == [66]
    check_counting_windows(model)


class StopAt(BaseCallback):
    def __init__(self, num_timesteps):
        super().__init__()
        self.stop = num_timesteps

    def _on_step(self):
        return self.num_timesteps < self.stop


@pytest.mark.parametrize("how", ["reset", "callback", "set_env", "load_replay_buffer", "load_while_running"])
def test_windows_never_cross_an_outside_reset(how, tmp_path):
    model = make_model(2)
    model.learn(2 * 8 + 2, log_interval=None)
    if how == "reset":
        model.learn(24)
    elif how == "callback":
        for stop in range(2, 22, 2):
            model.learn(50, StopAt(model.num_timesteps + stop), reset_num_timesteps=False)
    elif how == "set_env":
        model.set_env(make_vec_env(2))
        model.learn(24, reset_num_timesteps=False)
    elif how == "load_while_running":
        model.save_replay_buffer(tmp_path / "buffer")
        model.learn(4, reset_num_timesteps=False)
        model.load_replay_buffer(tmp_path / "buffer")
        model.learn(24, reset_num_timesteps=False)
    else:
        model.save_replay_buffer(tmp_path / "buffer")
        other = make_model(2, sequence_length=5, n_steps=2)
        other.load_replay_buffer(tmp_path / "buffer")
        model = other.learn(24)
        assert model.replay_buffer.sample(2).mask.shape == (5, 2)
        assert model.replay_buffer.sample(2).actions.shape == (7, 2)
    check_counting_windows(model)


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("options", [{}, {"value_rescaling": True, "prioritized_replay": True}])
def test_targets_reach_the_value_of_a_known_process(agent, options):
    """Two steps, reward 1 each, then a true end or a time limit: Q is 1 + gamma and 1, or 1 / (1 - gamma)."""

    class OneReward(CountingEnv):
        def step(self, action):
            obs, _, *rest = super().step(action)
            return obs, 1.0, *rest

    for time_limit, expected in ((False, [1.5, 1.0]), (True, [2.0, 2.0])):
        env = OneReward(spaces.Box(-1, 3, (1,)), length=2, time_limit=time_limit)
        settings = {"gamma": 0.5, "learning_rate": 1e-2, "tau": 0.1, "train_freq": 1, "batch_size": 8}
        model = agent("MlpLstmPolicy", env, **{**SMALL, **settings, **options}).learn(400)
        obs = torch.tensor([[[0.0]], [[1.0]]])
        values = model.q_net.window_values(obs).mean(dim=(-2, -1)).squeeze(1)
        if "value_rescaling" in options:
            values = unscale_values(values)
        np.testing.assert_allclose(values.detach(), expected, atol=0.15)


class BatchNormExtractor(BaseFeaturesExtractor):
    def __init__(self, observation_space):
        super().__init__(observation_space, features_dim=2)
        self.norm = nn.BatchNorm1d(2)

    def forward(self, observations):
        return self.norm(observations)


def test_an_update_is_one_lstm_call_of_each_network():
    model = make_model().learn(20)
    shapes = []
    for net in (model.q_net, model.q_net_target):
        net.rnn.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output[0].shape)))
    model.train(gradient_steps=1, batch_size=4)
    assert shapes == [(7, 4, 8), (7, 4, 8)]


def test_target_network_follows_parameters_and_batch_norm_statistics():
    model = make_model(
        tau=0.25, target_update_interval=8, policy_kwargs={"features_extractor_class": BatchNormExtractor}
    )
    model.learn(20)
    assert model.train_freq.frequency == 4, "8 steps are 2 updates"
    online, target = model.q_net, model.q_net_target
    names = ["features_extractor.norm.running_mean", "features_extractor.norm.running_var", "rnn.weight_ih_l0"]
    before = {name: target.state_dict()[name].clone() for name in names}
    model.train(gradient_steps=1, batch_size=4)
    for name in names:
        assert torch.equal(target.state_dict()[name], before[name])
        assert not torch.equal(online.state_dict()[name], before[name])
    model.train(gradient_steps=1, batch_size=4)
    for name in names:
        followed = 1.0 if "running" in name else 0.25
        expected = torch.lerp(before[name], online.state_dict()[name], followed)
        torch.testing.assert_close(target.state_dict()[name], expected)
    assert model._n_updates == 2
    assert online.training
    assert not target.training
    model.predict(np.zeros(2, np.float32))
    assert not online.training


class Doubles(TorchFunctionMode):
    """Collects what makes or takes float64 tensors."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in tree_leaves((args, kwargs, result)):
            if isinstance(value, torch.Tensor) and value.dtype == torch.float64:
                self.found.add(getattr(function, "__name__", str(function)))
        return result


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("space", [spaces.Box(-100, 100, (2,), np.float64), MIXED, KEYPOINTS])
def test_no_update_or_act_makes_float64(agent, normalized, space):
    """Apple's GPUs have none."""
    keys = ["vector" if space is MIXED else "features"] if isinstance(space, spaces.Dict) else None
    env = make_vec_env(2, space)
    env = VecNormalize(env, norm_obs_keys=keys) if normalized else env
    policy = "PermaKeyPolicy" if space is KEYPOINTS else "MultiInputLstmPolicy" if keys else "MlpLstmPolicy"
    model = agent(policy, env, **{**SMALL, **EVERYTHING}).learn(30)
    with Doubles() as doubles:
        model.learn(16, reset_num_timesteps=False)
        observation = model.env.reset()
        _, state = model.predict(observation)
        model.predict(observation, tuple(part.astype(np.float64) for part in state))
    assert model._n_updates > 2
    assert doubles.found == set()


def test_learns_with_normalized_observations():
    env = VecNormalize(make_vec_env(2))
    model = RecurrentDQN("MlpLstmPolicy", env, **SMALL).learn(60)
    stored = model.replay_buffer._observations.arrays()[None]
    assert stored.max() == 7, "the buffer holds what was not normalized"
    normalized = model.replay_buffer.sample(50, env=env).observations
    assert normalized.abs().max() < 4


def test_what_cannot_work_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match="already stored once"):
        make_model(optimize_memory_usage=True)
    with pytest.raises(ValueError, match="that is a SequenceReplayBuffer, got ReplayBuffer"):
        make_model(replay_buffer_class=ReplayBuffer)
    with pytest.raises(ValueError, match="target_update_interval must be at least 1, got 0"):
        make_model(target_update_interval=0)
    with pytest.raises(ValueError, match="sequence_length and n_steps .lookahead. must be at least 1"):
        make_model(n_steps=0)
    with pytest.raises(ValueError, match="Dict observations need MultiInputLstmPolicy"):
        make_model(space=MIXED)
    with pytest.raises(ValueError, match="wrap the environment with PermaKeyObservation first"):
        make_model(policy="PermaKeyPolicy")
    env = CountingEnv(VECTOR)
    env.action_space = spaces.Discrete(3, start=1)
    with pytest.raises(ValueError, match="actions counted from 0"):
        RecurrentDQN("MlpLstmPolicy", env, **SMALL)
    with pytest.raises(ValueError, match="recurrent_state must be one of zero, stored, not 'kept'"):
        make_model(recurrent_state="kept")
    with pytest.raises(ValueError, match="priority_eta must be from 0 to 1, not 2"):
        make_model(priority_eta=2)
    with pytest.raises(ValueError, match="that is a PrioritizedSequenceReplayBuffer, got SequenceReplayBuffer"):
        make_model(prioritized_replay=True, replay_buffer_class=SequenceReplayBuffer)


def test_priorities_are_those_of_the_last_update():
    model = make_model(prioritized_replay=True, priority_eta=0.5).learn(60)
    buffer, given = model.replay_buffer, {}
    update = buffer.update_priorities

    def spy(indices, priorities):
        given.update(zip(indices, priorities, strict=True))
        update(indices, priorities)

    buffer.update_priorities = spy
    model.train(gradient_steps=1, batch_size=4)
    assert given
    for index, priority in given.items():
        assert buffer._tree.weights(np.array([index]))[0] == pytest.approx(priority**0.9, rel=1e-5)


@pytest.mark.parametrize("agent", AGENTS)
def test_r2d2_preset(agent):
    model = agent("MlpLstmPolicy", make_vec_env(2), buffer_size=2000, learning_starts=200, device=DEVICE, **R2D2)
    model.learn(204)
    assert model._n_updates > 0
    assert (model.burn_in, model.sequence_length, model.n_steps) == (40, 80, 5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("what", ["observation", "reward"])
def test_what_is_not_finite_stops_with_a_clear_error(what, value):
    class Breaks(CountingEnv):
        def step(self, action):
            obs, reward, *rest = super().step(action)
            if self.step_number == 3:
                obs, reward = (obs * value, reward) if what == "observation" else (obs, value)
            return obs, reward, *rest

    model = RecurrentDQN("MlpLstmPolicy", Breaks(VECTOR), **SMALL)
    with pytest.raises(ValueError, match=f"returned a {what} that is NaN or infinite"):
        model.learn(20)


def test_a_loss_that_is_not_finite_stops_with_a_clear_error():
    model = make_model().learn(40)
    with torch.no_grad():
        next(model.q_net.parameters()).fill_(np.nan)
    with pytest.raises(ValueError, match="loss or its gradient is not finite after 44 steps"):
        model.learn(20, reset_num_timesteps=False)


def test_the_log_tells_how_full_and_how_large():
    model = make_model(2)
    model.learn(60, log_interval=1000)
    model.dump_logs()
    model.logger.name_to_value.clear()
    recorded = {}
    model.logger.dump = lambda step: recorded.update(model.logger.name_to_value)
    model.dump_logs()
    assert recorded["rollout/buffer_fill"] == pytest.approx(64 / 200)
    assert recorded["rollout/recurrent_state_norm"] > 0


def test_loads_with_another_number_of_environments(tmp_path):
    make_model(1).learn(40).save(tmp_path / "model")
    loaded = RecurrentDQN.load(tmp_path / "model", env=make_vec_env(3), device=DEVICE)
    loaded.learn(60)
    assert loaded.replay_buffer.n_envs == 3


def test_subprocess_environments_give_the_same_run():
    runs = []
    for vec_env in (DummyVecEnv, SubprocVecEnv):
        env = vec_env([lambda length=length: CountingEnv(VECTOR, length) for length in (5, 7)])
        runs.append(RecurrentDQN("MlpLstmPolicy", env, **SMALL).learn(60))
        env.close()
    assert torch.equal(parameters(runs[0]), parameters(runs[1]))


def test_defaults_are_those_of_the_paper():
    model = RecurrentDQN("MlpLstmPolicy", CountingEnv(VECTOR), device=DEVICE)
    assert isinstance(model.replay_buffer, SequenceReplayBuffer)
    assert model.q_net.rnn.hidden_size == 128
    samples_states = model.replay_buffer.sequence_length + model.replay_buffer.lookahead
    assert (model.n_steps, samples_states, model.batch_size, model.tau) == (3, 11, 16, 0.005)
