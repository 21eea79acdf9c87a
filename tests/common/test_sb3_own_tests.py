"""What SB3's test of DQN's batch normalisation and sb3-contrib's tests of QRDQN check, with our agents put in.

They pass with these names in place of theirs:

- "MlpLstmPolicy", "CnnLstmPolicy", "MultiInputLstmPolicy" for those without "Lstm": as RecurrentPPO's are named.
- `q_net`, `q_net_target` for QRDQN's `quantile_net`, `quantile_net_target`: both agents call theirs as DQN does.
- `replay_buffer.sample(...)` for its arrays `observations`, `dones` and `timeouts`: each observation is stored once.
- `policy.predict` for `quantile_net.predict`: only a policy returns the recurrent state beside the actions.
- `quantile_huber_loss` is `sb3_permakey.common.targets`', with one loss for each step; `test_targets.py` compares both.
"""

from copy import deepcopy

import gymnasium as gym
import numpy as np
import pytest
import torch
from device_option import DEVICE
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv, IdentityEnv, SimpleMultiObsEnv
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.preprocessing import get_flattened_obs_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecFrameStack,
    VecNormalize,
    VecTransposeImage,
    is_vecenv_wrapped,
)
from torch import nn

from sb3_permakey import Rainbow, RecurrentDQN, RecurrentQRDQN

AGENTS = [RecurrentDQN, RecurrentQRDQN, Rainbow]
QUANTILES = {RecurrentDQN: {}, RecurrentQRDQN: {"n_quantiles": 20}, Rainbow: {}}

pytestmark = pytest.mark.usefixtures("one_thread")


def named(agent, policy):
    """Rainbow has no LSTM, and its policies are named as DQN's."""
    return policy.replace("Lstm", "") if agent is Rainbow else policy


class NormalisedWithDropout(BaseFeaturesExtractor):
    """Flat observations through batch normalisation and dropout."""

    def __init__(self, observation_space):
        super().__init__(observation_space, get_flattened_obs_dim(observation_space))
        self.flatten = nn.Flatten()
        self.batch_norm = nn.BatchNorm1d(self.features_dim)
        self.dropout = nn.Dropout(0.5)

    def forward(self, observations):
        return self.dropout(self.batch_norm(self.flatten(observations)))


WITH_NORM = {"net_arch": [16, 16], "features_extractor_class": NormalisedWithDropout}


def norms(model):
    """Bias and running mean of the online and the target network's batch normalisation."""
    layers = [net.features_extractor.batch_norm for net in (model.policy.q_net, model.policy.q_net_target)]
    return [(layer.bias.detach().clone(), layer.running_mean.clone()) for layer in layers]


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("interval", [{"target_update_interval": 100}, {}])
def test_batch_norm_of_the_target_in_training(agent, interval):
    """With tau=0 the target's weights stay, and its running statistics are the online network's all the same."""
    model = agent(
        named(agent, "MlpLstmPolicy"),
        "CartPole-v1",
        policy_kwargs=WITH_NORM,
        learning_starts=0,
        seed=1,
        tau=0.0,
        **interval,
    )
    (bias, mean), (target_bias, target_mean) = norms(model)
    model.learn(total_timesteps=200)
    model.target_update_interval = 1
    model._on_step()
    (bias_after, mean_after), (target_bias_after, target_mean_after) = norms(model)
    assert not torch.isclose(bias, bias_after).any()
    assert not torch.isclose(mean, mean_after).any()
    assert torch.isclose(target_bias, target_bias_after).all()
    assert torch.isclose(bias, target_bias_after).all()
    assert torch.isclose(mean, target_mean).all()
    assert torch.isclose(mean_after, target_mean_after).all()


@pytest.mark.parametrize("agent", AGENTS)
def test_batch_norm_while_acting(agent):
    """Neither acting nor predicting moves the statistics, and dropout is off."""
    kwargs = {"learning_starts": 10, "seed": 1, "gradient_steps": 0, "train_freq": 1}
    model = agent(named(agent, "MlpLstmPolicy"), "CartPole-v1", policy_kwargs=WITH_NORM, **kwargs)
    before = norms(model)
    model.learn(total_timesteps=100)
    observation = model.get_env().reset()
    first, _ = model.predict(observation, deterministic=True)
    for _ in range(5):
        np.testing.assert_array_equal(model.predict(observation, deterministic=True)[0], first)
    for old, new in zip(before, norms(model), strict=True):
        assert all(torch.equal(*parts) for parts in zip(old, new, strict=True))


@pytest.mark.parametrize("agent", AGENTS)
def test_runs(agent):
    few = {"n_quantiles": 25} if agent is RecurrentQRDQN else {}
    model = agent(
        named(agent, "MlpLstmPolicy"),
        "CartPole-v1",
        policy_kwargs={"net_arch": [64], **few},
        learning_starts=100,
        buffer_size=500,
        learning_rate=3e-4,
        train_freq=4,
        gradient_steps=1,
        verbose=1,
    )
    model.learn(total_timesteps=500)
    assert model._n_updates == 100


@pytest.mark.parametrize("agent", AGENTS)
def test_several_environments_with_time_limits(agent):
    env = make_vec_env(lambda: gym.wrappers.TimeLimit(gym.make("CartPole-v1"), 50), n_envs=2)
    kwargs = {"learning_starts": 100, "buffer_size": 10_000, "train_freq": 5, "gradient_steps": 1}
    model = agent(named(agent, "MlpLstmPolicy"), env, policy_kwargs={"net_arch": [64], **QUANTILES[agent]}, **kwargs)
    assert model.learn(total_timesteps=150)._n_updates == 5


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("stats_window_size", [1, 42])
def test_episodes_in_the_statistics(agent, stats_window_size):
    model = agent(named(agent, "MlpLstmPolicy"), "CartPole-v1", stats_window_size=stats_window_size).learn(10)
    assert model.ep_info_buffer.maxlen == model.ep_success_buffer.maxlen == stats_window_size


@pytest.mark.parametrize("agent", AGENTS)
def test_deterministic_training(agent):
    results = []
    for _ in range(2):
        kwargs = {"learning_starts": 200, "target_update_interval": 20, "learning_rate": 1e-3, "seed": 0, "tau": 1.0}
        model = agent(named(agent, "MlpLstmPolicy"), "CartPole-v1", policy_kwargs={"net_arch": [16]}, **kwargs).learn(
            256
        )
        env, states, episode_start = model.get_env(), None, None
        observation, actions, rewards = env.reset(), [], []
        for _ in range(100):
            action, states = model.predict(observation, states, episode_start, deterministic=False)
            observation, reward, episode_start, _ = env.step(action)
            actions.append(action.item())
            rewards.append(reward.item())
        results.append((actions, rewards))
    assert results[0] == results[1]


def some_observations(env, count=10):
    env.reset()
    return np.concatenate([env.step([env.action_space.sample()])[0] for _ in range(count)])


def random_like(state_dict):
    return {
        name: torch.rand_like(part) if part.is_floating_point() else torch.randint_like(part, high=10)
        for name, part in state_dict.items()
    }


@pytest.mark.parametrize("agent", AGENTS)
def test_parameters_are_got_set_saved_and_loaded(agent, tmp_path):
    env = DummyVecEnv([lambda: IdentityEnv(10)])
    model = agent(
        named(agent, "MlpLstmPolicy"), env, policy_kwargs={"net_arch": [16], **QUANTILES[agent]}, learning_starts=100
    )
    model.learn(total_timesteps=130)
    observations = some_observations(env)
    original = deepcopy(model.get_parameters())
    assert set(original) == {"policy", "policy.optimizer"}
    for exact in (True, False):
        with pytest.raises(ValueError, match="invalid"):
            model.set_parameters({**original, "no_such_object": "no tensor"}, exact_match=exact)
    with pytest.raises(ValueError, match="Names of parameters do not match"):
        model.set_parameters({"policy": original["policy"]}, exact_match=True)
    lacking = {name: dict(list(part.items())[:-1]) for name, part in original.items()}
    with pytest.raises(RuntimeError, match="Missing key"):
        model.set_parameters(lacking, exact_match=True)

    *others, last = original["policy"]
    changed = random_like({name: original["policy"][name] for name in others})
    model.set_parameters({**original, "policy": changed}, exact_match=False)
    parameters = model.get_parameters()["policy"]
    assert torch.equal(parameters[last], original["policy"][last])
    assert all(torch.equal(parameters[name], changed[name]) for name in others)

    actions, _ = model.predict(observations, deterministic=True)
    model.save(tmp_path / "model.zip")
    for device in ("auto", "cpu"):
        loaded = agent.load(str(tmp_path / "model.zip"), env=env, device=device)
        assert all(torch.equal(loaded.get_parameters()["policy"][name], part) for name, part in parameters.items())
        np.testing.assert_array_equal(loaded.predict(observations, deterministic=True)[0], actions)
        loaded.learn(total_timesteps=130)


@pytest.mark.parametrize("agent", AGENTS)
def test_other_environments(agent):
    kwargs = {"policy_kwargs": {"net_arch": [16], **QUANTILES[agent]}, "learning_starts": 100}
    model = agent(named(agent, "MlpLstmPolicy"), DummyVecEnv([lambda: IdentityEnv(10)]), **kwargs)
    for env in (None, DummyVecEnv([lambda: IdentityEnv(10)]), IdentityEnv(10)):
        if env is not None:
            model.set_env(env)
        model.learn(total_timesteps=120)


@pytest.mark.parametrize("agent", AGENTS)
def test_what_is_saved_is_chosen(agent, tmp_path):
    model = agent(named(agent, "MlpLstmPolicy"), IdentityEnv(10), policy_kwargs={"net_arch": [16]}, verbose=2)
    model.save(tmp_path / "model", exclude=["verbose"])
    loaded = agent.load(str(tmp_path / "model.zip"))
    assert loaded.verbose != 2
    loaded.verbose = 2
    loaded.save(tmp_path / "model", exclude=["verbose"], include=["verbose"])
    assert agent.load(str(tmp_path / "model.zip")).verbose == 2


@pytest.mark.parametrize("agent", AGENTS)
def test_replay_buffers_are_saved_loaded_and_extended(agent, tmp_path):
    model = agent(named(agent, "MlpLstmPolicy"), IdentityEnv(10), buffer_size=1000, learning_starts=260).learn(300)
    before = deepcopy(model.replay_buffer)
    model.save_replay_buffer(tmp_path / "logs" / "replay_buffer.pkl")
    model.replay_buffer = None
    model.load_replay_buffer(tmp_path / "logs" / "replay_buffer.pkl")
    steps = model.replay_buffer.size()
    assert steps == before.size() == 300
    windows = []
    for buffer in (before, model.replay_buffer):
        np.random.seed(0)
        windows.append(buffer.sample(200))
    for name in ("observations", "actions", "rewards", "terminated", "mask"):
        assert torch.equal(*(getattr(part, name) for part in windows)), name

    rows = np.arange(20)[:, None]
    dones = rows % 5 == 4
    infos = [[{"TimeLimit.truncated": bool(done)}] for done in dones[:, 0]]
    model.replay_buffer.extend(rows % 5, rows % 5 + 1, rows % 3, rows * 1.0, dones, infos)
    assert model.replay_buffer.size() == steps + 20


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("policy", ["MlpLstmPolicy", "CnnLstmPolicy"])
def test_policies_and_networks_alone_are_saved_and_loaded(agent, policy, tmp_path):
    kwargs = {"learning_starts": 100, "policy_kwargs": {"net_arch": [16], **QUANTILES[agent]}}
    env = DummyVecEnv([lambda: IdentityEnv(10)])
    if policy == "CnnLstmPolicy":
        kwargs = {**kwargs, "buffer_size": 250}
        kwargs["policy_kwargs"]["features_extractor_kwargs"] = {"features_dim": 32}
        env = DummyVecEnv([lambda: FakeImageEnv(screen_height=40, screen_width=40, n_channels=2, discrete=True)])
    model = agent(named(agent, policy), env, **kwargs).learn(130)
    observations = some_observations(env)
    for part, other in ((model.policy, model.policy.predict), (model.q_net, None)):
        part.load_state_dict(changed := random_like(part.state_dict()))
        part.save(tmp_path / "part.pkl")
        loaded = type(part).load(tmp_path / "part.pkl", device=DEVICE)
        assert list(loaded.state_dict()) == list(changed)
        assert all(torch.equal(tensor, changed[name]) for name, tensor in loaded.state_dict().items())
        if other is not None:
            actions, _ = other(observations, deterministic=True)
            np.testing.assert_array_equal(loaded.predict(observations, deterministic=True)[0], actions)
        else:
            tensors, _ = model.policy.obs_to_tensor(observations)
            values = [net.window_values(tensors.unsqueeze(0)) for net in (part.eval(), loaded.eval())]
            assert torch.equal(*values)


@pytest.mark.parametrize("agent", AGENTS)
def test_images(agent, tmp_path):
    env = FakeImageEnv(screen_height=40, screen_width=40, n_channels=1, discrete=True)
    policy = {**QUANTILES[agent], "features_extractor_kwargs": {"features_dim": 32}}
    model = agent(named(agent, "CnnLstmPolicy"), env, buffer_size=250, policy_kwargs=policy).learn(250)
    assert is_vecenv_wrapped(model.get_env(), VecTransposeImage)
    observation, _ = env.reset()
    model.exploration_rate = 0.9
    actions = {int(model.predict(observation, deterministic=False)[0]) for _ in range(30)}
    assert len(actions) > 1
    action, _ = model.predict(observation, deterministic=True)
    model.save(tmp_path / "model.zip")
    np.testing.assert_array_equal(
        agent.load(tmp_path / "model.zip").predict(observation, deterministic=True)[0], action
    )


@pytest.mark.parametrize("agent", AGENTS)
def test_the_target_network_follows_as_told(agent):
    env = FakeImageEnv(screen_height=40, screen_width=40, n_channels=1, discrete=True)
    policy = {**QUANTILES[agent], "features_extractor_kwargs": {"features_dim": 32}}
    kwargs = {"buffer_size": 250, "learning_starts": 100, "policy_kwargs": policy, "seed": 0}

    def equal(first, second):
        return [torch.allclose(*pair) for pair in zip(first, second, strict=True)]

    model = agent(named(agent, "CnnLstmPolicy"), env, **kwargs)
    assert all(equal(model.q_net.parameters(), model.q_net_target.parameters()))
    model.learn(120)
    assert not any(equal(model.q_net.parameters(), model.q_net_target.parameters()))
    model.target_update_interval = 1
    model._on_step()
    assert all(equal(model.batch_norm_stats, model.batch_norm_stats_target))

    model = agent(named(agent, "CnnLstmPolicy"), env, **kwargs).learn(10)
    online, target = deepcopy(list(model.q_net.parameters())), deepcopy(list(model.q_net_target.parameters()))
    model.tau = 0.0
    model.train(gradient_steps=1)
    assert all(equal(target, model.q_net_target.parameters()))
    assert not any(equal(online, model.q_net.parameters()))
    online = deepcopy(list(model.q_net.parameters()))
    model.lr_schedule = lambda _: 0.0
    model.tau = 0.01
    model.train(gradient_steps=1)
    assert not any(equal(target, model.q_net_target.parameters()))
    assert all(equal(online, model.q_net.parameters()))


class Mixed(gym.Env):
    """Random images, vectors and numbers, or the vectors alone, as a Dict."""

    action_space = spaces.Discrete(3)

    def __init__(self, channel_last=False, vectors_alone=False):
        vector = spaces.Box(-1, 1, (2,), np.float32)
        image = spaces.Box(0, 255, (64, 64, 1) if channel_last else (1, 64, 64), np.uint8)
        parts = {"vec": vector} if vectors_alone else {"img": image, "vec": vector, "discrete": spaces.Discrete(4)}
        self.observation_space = spaces.Dict(parts)

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


def dict_kwargs(agent):
    policy = {"net_arch": [32], "features_extractor_kwargs": {"cnn_output_dim": 32}, **QUANTILES[agent]}
    small = {"buffer_size": 250, "train_freq": 8, "gradient_steps": 1, "learning_starts": 0, "batch_size": 4}
    return {"policy_kwargs": policy, "gamma": 0.5, "seed": 1, **small}


@pytest.mark.parametrize("agent", AGENTS)
def test_a_dict_of_vectors_is_as_the_vector(agent):
    env = gym.wrappers.TimeLimit(Mixed(vectors_alone=True), 100)
    kwargs = {**dict_kwargs(agent), "policy_kwargs": {"net_arch": [32], **QUANTILES[agent]}}
    actions = []
    for policy, wrapped in (("MultiInputLstmPolicy", env), ("MlpLstmPolicy", gym.wrappers.FlattenObservation(env))):
        env.observation_space.seed(10)
        model = agent(named(agent, policy), wrapped, **kwargs)
        env.observation_space.seed(10)
        model.learn(256)
        observations = [{"vec": np.float32([x, -x])} for x in np.linspace(-1, 1, 20)]
        given = observations if policy == "MultiInputLstmPolicy" else [part["vec"] for part in observations]
        actions.append([int(model.predict(part, deterministic=True)[0]) for part in given])
    assert actions[0] == actions[1]


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("channel_last", [False, True])
@pytest.mark.parametrize("kind", ["plain", "stacked", "normalised"])
def test_dicts_of_images_vectors_and_numbers(agent, channel_last, kind):
    if kind == "stacked":
        make = SimpleMultiObsEnv(random_start=True, discrete_actions=True, channel_last=channel_last)
        order = {"vec": None, "img": "last" if channel_last else "first"}
        env = VecFrameStack(DummyVecEnv([lambda: make]), n_stack=3, channels_order=order)
    else:
        env = DummyVecEnv([lambda: gym.wrappers.TimeLimit(Mixed(channel_last), 100)])
        env = VecNormalize(env, norm_obs_keys=["vec"]) if kind == "normalised" else env
    model = agent(named(agent, "MultiInputLstmPolicy"), env, **dict_kwargs(agent))
    assert model.learn(total_timesteps=80)._n_updates == 10
    evaluate_policy(model, model.get_env(), n_eval_episodes=2, warn=False)
