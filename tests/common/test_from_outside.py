"""A memory and a value head of other people's, each one file, in agents that know neither."""

import inspect
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from counting_env import SMALL, make_vec_env
from device_option import DEVICE
from stable_baselines3.common.envs import IdentityEnv
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv
from toy_head import ShiftedValues
from toy_memory import LastStep

from sb3_permakey import Rainbow, RecurrentDQN
from sb3_permakey.common.memory import MEMORY_CELLS

RECURRENT = {"recurrent_state": "stored", "burn_in": 2, "n_steps": 2, "seed": 0}

pytestmark = pytest.mark.usefixtures("one_thread")


def make_agent(agent, env, memory, head, **options):
    if agent is Rainbow:
        few = {"learning_starts": 20, "buffer_size": 500}
        return Rainbow("MlpPolicy", env, memory=memory, value_head=head, **{**few, **RECURRENT, **options})
    policy = {"rnn_type": memory, "value_head": head, "dueling": True}
    return RecurrentDQN("MlpLstmPolicy", env, **{**SMALL, **RECURRENT, "policy_kwargs": policy, **options})


@pytest.mark.parametrize("agent", [RecurrentDQN, Rainbow])
@pytest.mark.parametrize("head", [ShiftedValues, partial(ShiftedValues, shift=-1.0)])
def test_a_toy_memory_and_a_toy_head_learn_save_and_load(agent, head, tmp_path):
    model = make_agent(agent, make_vec_env(2), LastStep, head)
    before = torch.cat([parameter.detach().flatten().clone() for parameter in model.q_net.parameters()])
    model.learn(60)
    assert not torch.equal(before, torch.cat([parameter.flatten() for parameter in model.q_net.parameters()]))
    assert model.replay_buffer.state_shape == (1, 1, 2)
    model.save(tmp_path / "model")
    loaded = agent.load(tmp_path / "model", device=DEVICE)
    assert isinstance(loaded.q_net.rnn, LastStep)
    assert loaded.q_net.values.shift == head().shift
    obs = model.env.reset()
    assert np.array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])


def test_the_guide_shows_this_memory():
    guide = Path(__file__).parents[2] / "docs/recurrent_agents.md"
    assert inspect.getsource(LastStep) in guide.read_text()


def test_a_name_of_ones_own(monkeypatch):
    monkeypatch.setitem(MEMORY_CELLS, "last-step", LastStep)
    model = make_agent(RecurrentDQN, make_vec_env(1), "last-step", "scalar").learn(30)
    assert isinstance(model.q_net.rnn, LastStep)


def test_a_toy_head_learns_what_brings_rewards():
    env = DummyVecEnv([lambda: IdentityEnv(dim=3, ep_length=20)])
    settings = {"gamma": 0.0, "learning_rate": 3e-3, "reset_interval": 0, "gradient_steps": 1}
    model = make_agent(Rainbow, env, "none", ShiftedValues, **settings, exploration_fraction=0.5).learn(1000)
    score, _ = evaluate_policy(model, DummyVecEnv([lambda: IdentityEnv(dim=3, ep_length=20)]), n_eval_episodes=5)
    assert score >= 19


@pytest.mark.parametrize("head", ["mean", lambda: None, 3])
def test_what_makes_no_values_is_refused(head):
    with pytest.raises(ValueError, match="value_head must be .*, or make Values of your own, not"):
        make_agent(RecurrentDQN, make_vec_env(1), "lstm", head)
