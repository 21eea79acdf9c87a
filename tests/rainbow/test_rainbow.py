"""Rainbow: what it does as it says, and that it is used as SB3's own agents are."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import MovingSquare
from device_option import DEVICE
from gymnasium import spaces
from stable_baselines3.common.atari_wrappers import WarpFrame
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv, IdentityEnv
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack
from torch import nn

from sb3_permakey import PermaKeyObservation, Rainbow, RecurrentDQN, SmallCNN
from sb3_permakey.common.presets import BBF, DATA_EFFICIENT_RAINBOW, RAINBOW, RAINBOW_PEAKS
from sb3_permakey.common.run_checkpoint import load_run, save_run
from sb3_permakey.common.transition_buffer import PrioritizedReplayBuffer
from sb3_permakey.common.value_heads import CategoricalValues, QuantileValues, ScalarValues, project
from sb3_permakey.encoders import pairs
from sb3_permakey.play.saved_agents import load_agent

SMALL = {"learning_starts": 20, "buffer_size": 300, "batch_size": 8, "device": DEVICE, "seed": 0}
NET = {"policy_kwargs": {"net_arch": [16]}}

pytestmark = pytest.mark.usefixtures("one_thread")


def make_model(env="CartPole-v1", **kwargs):
    return Rainbow("MlpPolicy", env, **{**SMALL, **NET, **kwargs})


def parameters(model):
    return torch.cat([part.flatten() for part in model.policy.parameters()])


def test_defaults_are_those_of_bbf():
    model = Rainbow("MlpPolicy", "CartPole-v1", device=DEVICE)
    again = Rainbow("MlpPolicy", "CartPole-v1", device=DEVICE, **BBF)
    for name in ("learning_rate", "batch_size", "n_steps_annealed", "gamma_annealed", "reset_interval", "last_reset"):
        assert getattr(model, name) == getattr(again, name)
    assert model.policy_kwargs == again.policy_kwargs
    assert isinstance(model.q_net.values, CategoricalValues)
    assert isinstance(model.replay_buffer, PrioritizedReplayBuffer)


def test_dropout_does_not_choose_the_actions_whose_values_are_learned_from():
    class Dropped(FlattenExtractor):
        def forward(self, observations):
            modes.append(self.training)
            return nn.functional.dropout(super().forward(observations), 0.5, self.training)

    modes = []
    model = make_model(policy_kwargs={"net_arch": [16], "features_extractor_class": Dropped}, train_freq=1000)
    model.learn(100)
    modes.clear()
    model.train(1, 8)
    # The states drawn while learning; the target and the choice of the next states in evaluation mode.
    assert sorted(modes) == [False, False, True]
    assert model.q_net.training


@pytest.mark.parametrize("preset", [RAINBOW, RAINBOW_PEAKS])
def test_presets_are_taken(preset):
    Rainbow("MlpPolicy", "CartPole-v1", device=DEVICE, **{**preset, "buffer_size": 1000})


def test_the_preset_for_images_has_a_small_network():
    env = VecFrameStack(DummyVecEnv([lambda: WarpFrame(MovingSquare())]), 4)
    settings = {**DATA_EFFICIENT_RAINBOW, "learning_starts": 20, "buffer_size": 100}
    model = Rainbow("CnnPolicy", env, device=DEVICE, seed=0, **settings).learn(40)
    assert isinstance(model.q_net.features_extractor, SmallCNN)
    assert model._n_updates == 20
    assert (
        sum(one.numel() for one in model.q_net.features_extractor.parameters()) == 4 * 25 * 32 + 32 + 32 * 25 * 64 + 64
    )


@pytest.mark.parametrize(("value_head", "kind"), [("scalar", ScalarValues), ("quantile", QuantileValues)])
@pytest.mark.parametrize("dueling", [True, False])
def test_other_heads(value_head, kind, dueling):
    model = make_model(value_head=value_head, dueling=dueling, n_quantiles=7).learn(60)
    assert isinstance(model.q_net.values, kind)
    assert (model.q_net.head.state_value is not None) == dueling


@pytest.mark.parametrize(
    ("value_head", "memory"),
    [("scalar", "none"), ("quantile", "none"), ("categorical", "none"), ("categorical", "gru")],
)
def test_identity_task(value_head, memory):
    """The action that names the observation brings the reward."""
    env = DummyVecEnv([lambda: IdentityEnv(dim=3, ep_length=20)])
    model = make_model(
        env,
        gamma=0.0,
        n_steps=1,
        learning_rate=3e-3,
        exploration_fraction=0.5,
        value_head=value_head,
        v_min=-2,
        v_max=2,
        memory=memory,
        reset_interval=0,
        gradient_steps=1,
    ).learn(1000)
    score, _ = evaluate_policy(model, make_vec_env(lambda: IdentityEnv(dim=3, ep_length=20)), n_eval_episodes=5)
    assert score >= 19


@pytest.mark.parametrize("memory", ["none", "lstm", "gru", "mingru"])
def test_same_seed_same_run(memory):
    runs = [make_model(make_vec_env("CartPole-v1", 2), memory=memory, seed=seed).learn(80) for seed in (3, 3, 4)]
    assert torch.equal(parameters(runs[0]), parameters(runs[1]))
    assert not torch.equal(parameters(runs[0]), parameters(runs[2]))


@pytest.mark.parametrize(
    ("option", "changed"),
    [
        ("double_q", False),
        ("prioritized_replay", False),
        ("priority_alpha", 0.9),
        ("priority_beta", 0.0),
        ("act_with_target", False),
        ("weight_decay", 0.0),
        ("n_steps", 1),
        ("gamma", 0.9),
        ("reset_interval", 30),
    ],
)
def test_every_option_makes_a_difference(option, changed):
    runs = [make_model(learning_rate=3e-3, **kwargs).learn(100) for kwargs in ({}, {option: changed})]
    assert not torch.equal(parameters(runs[0]), parameters(runs[1]))


class Updates(BaseCallback):
    """Keeps n, discount and the optimizer's count of steps before each update."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def _on_training_start(self):
        real = self.model.replay_buffer.sample_transitions

        def sample(batch_size, n_steps, gamma, env):
            steps = [int(state["step"]) for state in self.model.policy.optimizer.state.values()]
            self.seen.append((n_steps, round(gamma, 6), max(steps, default=0)))
            return real(batch_size, n_steps, gamma, env)

        self.model.replay_buffer.sample_transitions = sample

    def _on_step(self):
        return True


def test_annealing_begins_anew_at_each_reset_until_the_last():
    watch = Updates()
    annealed = {"n_steps": (4, 1, 10), "gamma": (0.9, 0.99, 10)}
    make_model(reset_interval=15, last_reset=30, gradient_steps=1, **annealed).learn(90, watch)
    first, at_5, at_14, after_reset, at_29, after_second, last = (
        watch.seen[index] for index in (0, 5, 14, 15, 29, 30, 69)
    )
    assert first == (4, 0.9, 0)
    # 4 (1/4)^(1/2) and 1 - .1 (.1)^(1/2)
    assert at_5 == (2, round(1 - 0.1 * 0.1**0.5, 6), 5)
    assert at_14 == at_29 == (1, 0.99, 14)
    # A fresh optimizer has made no step.
    assert after_reset == after_second == first
    assert last == (1, 0.99, 39)


class WithWeight(nn.Module):
    """A features extractor with a weight of its own."""

    def __init__(self, inner, value):
        super().__init__()
        self.inner = inner
        self.weight = nn.Parameter(torch.full((2, 2), value))

    def forward(self, observations):
        return self.inner(observations)


def test_a_reset_leaves_what_it_says():
    model = make_model(learning_rate=1e-2, reset_shrink=0.75, reset_interval=0).learn(60)
    made = model.policy.make_q_net

    def make_with(value):
        net = made()
        net.features_extractor = WithWeight(net.features_extractor, value)
        return net

    model.policy.make_q_net = lambda: make_with(4.0)
    for net in (model.q_net, model.q_net_target):
        net.features_extractor = WithWeight(net.features_extractor, 8.0)
    head = model.q_net.head.advantages[0].weight
    before = head.clone()
    assert model.policy.optimizer.state
    model.reset_networks()
    assert torch.equal(model.q_net.features_extractor.weight, torch.full((2, 2), 7.0))
    assert (head - before).abs().max() > 0.01
    for online, target in zip(model.q_net.parameters(), model.q_net_target.parameters(), strict=True):
        assert torch.equal(online, target)
    assert not model.policy.optimizer.state


def test_weights_decay_but_biases_do_not():
    model = make_model(weight_decay=0.1)
    decays = {group["weight_decay"]: group["params"] for group in model.policy.optimizer.param_groups}
    assert set(decays) == {0.0, 0.1}
    assert all(parameter.dim() > 1 for parameter in decays[0.1])
    assert all(parameter.dim() == 1 for parameter in decays[0.0])


@pytest.mark.parametrize("options", [{}, {"memory": "lstm", "recurrent_state": "stored", "burn_in": 2}])
def test_a_run_goes_on_in_the_middle_of_an_annealing(options, tmp_path):
    """Saved and loaded, the next updates are those of the run that went on."""
    settings = {"n_steps": (4, 1, 100), "gamma": (0.9, 0.99, 100), "reset_interval": 50, **options}
    model = make_model(make_vec_env("CartPole-v1", 1, seed=0), **settings).learn(60)
    save_run(model, tmp_path)
    loaded = load_run(Rainbow, tmp_path, make_vec_env("CartPole-v1", 1), device=DEVICE)
    assert (loaded._n_updates, loaded._updates_at_reset) == (80, 50)
    assert loaded.replay_buffer.lookahead == 4
    loaded.set_logger(model.logger)
    for one in (model, loaded):
        np.random.seed(1)
        torch.manual_seed(1)
        # Over the reset after the 100th update.
        one.train(60, 8)
    assert torch.equal(parameters(model), parameters(loaded))
    assert loaded.gamma == model.gamma


class DictEnv(gym.Env):
    observation_space = spaces.Dict({"a": spaces.Box(-1, 1, (2,), np.float32), "b": spaces.Discrete(3)})
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.observe(), {}

    def observe(self):
        return {"a": self.np_random.uniform(-1, 1, 2).astype(np.float32), "b": np.int64(self.steps % 3)}

    def step(self, action):
        self.steps += 1
        return self.observe(), float(action), self.steps >= 9, False, {}


@pytest.mark.parametrize("policy", ["MlpPolicy", "CnnPolicy", "MultiInputPolicy", "PermaKeyPolicy"])
def test_habits_of_sb3_for_all_policies(policy, checkpoint, tmp_path):
    make = {
        "MlpPolicy": lambda: gym.make("CartPole-v1"),
        "CnnPolicy": lambda: FakeImageEnv(screen_height=40, screen_width=40, n_channels=1, discrete=True),
        "MultiInputPolicy": DictEnv,
        "PermaKeyPolicy": lambda: PermaKeyObservation(MovingSquare(), checkpoint, readout="peaks", history=2),
    }[policy]
    model = Rainbow(policy, make(), **SMALL).learn(40)
    score, _ = evaluate_policy(model, model.env, n_eval_episodes=2, warn=False)
    assert np.isfinite(score)
    model.save(tmp_path / "agent")
    loaded = Rainbow.load(tmp_path / "agent", env=make(), device=DEVICE)
    obs = model.env.reset()
    for one in (loaded, load_agent(tmp_path / "agent.zip", device=DEVICE)):
        assert isinstance(one, Rainbow)
        actions, state = one.predict(obs, deterministic=True)
        assert np.array_equal(actions, model.predict(obs, deterministic=True)[0])
        assert np.array_equal(one.predict(obs, state, np.zeros(1, bool), deterministic=True)[0], actions)
    loaded.learn(30, reset_num_timesteps=False)
    assert loaded._n_updates > model._n_updates


def plain_update(model, batch):
    """An update written down step by step: a pass for each network and state, torch's clipping and its optimizer."""
    net, target, values = model.q_net, model.q_net_target, model.q_net.values
    rows = torch.arange(len(batch.actions))
    predicted = net.head(net.features_extractor(batch.observations))[rows, batch.actions]
    with torch.no_grad():
        following = target.head(target.features_extractor(batch.next_observations))
        best = values.expected(net.head(net.features_extractor(batch.next_observations))).argmax(dim=1)
        outputs = following[rows, best]
        places = batch.returns[:, None] + batch.discounts[:, None] * values.support
        targets = project(places, outputs.softmax(dim=-1), values.v_min, values.v_max)
    losses = -(targets * predicted.log_softmax(dim=-1)).sum(dim=-1)
    model.policy.optimizer.zero_grad()
    (losses * batch.weights).mean().backward()
    nn.utils.clip_grad_norm_(net.parameters(), model.max_grad_norm)
    model.policy.optimizer.step()
    with torch.no_grad():
        for online, moving in zip(net.parameters(), target.parameters(), strict=True):
            moving += model.tau * (online - moving)
    model.replay_buffer.update_priorities(batch.indices, losses.detach().cpu().numpy())


def test_updates_are_those_written_down_step_by_step(checkpoint, monkeypatch):
    """A hundred of them, with the gradient clipped in some, to rounding."""

    def made():
        env = PermaKeyObservation(MovingSquare(), checkpoint, readout="peaks", history=2)
        return Rainbow("PermaKeyPolicy", env, **SMALL, n_steps=3, gamma=0.9, max_grad_norm=0.5).learn(40)

    model, plain = made(), made()
    assert torch.equal(parameters(model), parameters(plain))
    before = parameters(plain)
    np.random.seed(1)
    model.train(100, 8)
    np.random.seed(1)
    plain.policy.set_training_mode(True)
    monkeypatch.setattr(pairs, "mean_messages", lambda r, s: (r.unsqueeze(2) + s.unsqueeze(1)).relu().mean(dim=2))
    for _ in range(100):
        plain_update(plain, plain.replay_buffer.sample_transitions(8, 3, 0.9))
    moved = (parameters(plain) - before).abs().max()
    assert (parameters(model) - parameters(plain)).abs().max() < 1e-3 * moved


def test_epsilon_0_plays_greedily_in_training():
    model = make_model(exploration_fraction=0.1).learn(100)
    assert model.exploration_rate == 0.0
    obs = model.env.reset()
    assert {int(model.predict(obs)[0][0]) for _ in range(20)} == {int(model.predict(obs, deterministic=True)[0][0])}


@pytest.mark.parametrize("make", [make_model, lambda: RecurrentDQN("MlpLstmPolicy", "CartPole-v1", **SMALL)])
def test_logs_say_how_features_spread(make):
    model = make().learn(100)
    logged = {}
    model.logger.dump = lambda step: logged.update(model.logger.name_to_value)
    model.dump_logs()
    # CartPole's observations have four numbers.
    assert 1 <= logged["train/feature_rank"] <= 4
    assert logged["train/dead_units"] == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"reset_interval": -1}, "reset_interval must be 0 or more, got -1"),
        ({"reset_shrink": 1.5}, "reset_shrink must be from 0 to 1, got 1.5"),
        ({"n_steps": (10, 0, 100)}, "positive"),
        ({"n_steps": 0}, "n_steps"),
        ({"n_steps": (10, 3)}, r"n_steps must be a number or \(from, to, over how many updates\), got \(10, 3\)"),
        ({"gamma": [0.9]}, "gamma must be a number or"),
        ({"gamma": 1.2}, "gamma must be from 0 to 1, not 1.2"),
        ({"gamma": (0.9, 1.0, 100)}, "positive"),
        ({"value_head": "noisy"}, "value_head must be"),
        ({"v_min": 3, "v_max": 3}, "v_min"),
        ({"memory": "transformer"}, "must be one of"),
        ({"weight_decay": -1.0}, "weight_decay must be 0 or more, got -1.0"),
    ],
)
def test_wrong_arguments_get_a_sentence(wrong, message):
    with pytest.raises(ValueError, match=message):
        make_model(**wrong)


def test_names_of_other_policies_are_told():
    with pytest.raises(ValueError, match='use "MlpPolicy"'):
        Rainbow("MlpLstmPolicy", "CartPole-v1")
