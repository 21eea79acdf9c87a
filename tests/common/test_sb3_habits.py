"""The agents are used as SB3's own are, after SB3's own tests."""

import csv

import gymnasium as gym
import numpy as np
import pytest
from device_option import DEVICE
from stable_baselines3.common.callbacks import (
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import IdentityEnv
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from sb3_permakey import RecurrentDQN, RecurrentQRDQN

AGENTS = [RecurrentDQN, RecurrentQRDQN]
SMALL = {
    "learning_starts": 20,
    "buffer_size": 500,
    "batch_size": 4,
    "sequence_length": 4,
    "policy_kwargs": {"lstm_hidden_size": 8},
    "device": DEVICE,
    "seed": 0,
}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("n_envs", [1, 3])
def test_identity_task(agent, n_envs):
    """The action that names the observation brings the reward; no memory is needed, and none is in the way."""
    env = DummyVecEnv([lambda: IdentityEnv(dim=3, ep_length=20)] * n_envs)
    model = agent(
        "MlpLstmPolicy",
        env,
        **{**SMALL, "batch_size": 8, "gamma": 0.0, "learning_rate": 1e-2, "train_freq": 1},
        gradient_steps=n_envs,
        exploration_fraction=0.5,
    ).learn(1500)
    mean_reward, _ = evaluate_policy(model, make_vec_env(lambda: IdentityEnv(dim=3, ep_length=20)), n_eval_episodes=5)
    assert mean_reward >= 19


@pytest.mark.parametrize("agent", AGENTS)
def test_callbacks_of_sb3(agent, tmp_path):
    model = agent("MlpLstmPolicy", "CartPole-v1", **SMALL)
    checkpoints = CheckpointCallback(30, str(tmp_path), save_replay_buffer=True)
    evaluation = EvalCallback(
        make_vec_env("CartPole-v1"),
        callback_on_new_best=StopTrainingOnRewardThreshold(reward_threshold=1),
        eval_freq=50,
        n_eval_episodes=2,
        best_model_save_path=str(tmp_path),
        log_path=str(tmp_path),
        verbose=0,
    )
    model.learn(300, [checkpoints, evaluation])
    assert model.num_timesteps < 60, "stopped at the first evaluation"
    loaded = agent.load(tmp_path / "rl_model_30_steps.zip", env=gym.make("CartPole-v1"), device=DEVICE)
    loaded.load_replay_buffer(tmp_path / "rl_model_replay_buffer_30_steps.pkl")
    loaded.learn(30, reset_num_timesteps=False)
    assert loaded.num_timesteps >= 60
    assert len(np.load(tmp_path / "evaluations.npz")["results"]) == 1
    assert agent.load(tmp_path / "best_model.zip").num_timesteps == 50

    model = agent("MlpLstmPolicy", "CartPole-v1", **SMALL)
    model.learn(10_000, StopTrainingOnMaxEpisodes(3))
    assert model.num_timesteps < 600


@pytest.mark.parametrize("agent", AGENTS)
def test_logs_as_csv(agent, tmp_path):
    model = agent("MlpLstmPolicy", "CartPole-v1", **SMALL)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(300, log_interval=2)
    with (tmp_path / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected = {
        "rollout/ep_rew_mean",
        "rollout/exploration_rate",
        "rollout/buffer_fill",
        "rollout/recurrent_state_norm",
        "train/loss",
        "train/td_error",
        "train/q_mean",
        "train/grad_norm",
        "train/learning_rate",
        "train/n_updates",
        "time/fps",
    }
    assert expected <= set(rows[-1])
    assert all(np.isfinite(float(rows[-1][name])) for name in expected)


class Dropout(FlattenExtractor):
    """Features with BatchNorm and dropout, which act differently while training."""

    def __init__(self, observation_space):
        super().__init__(observation_space)
        self.uncertain = nn.Sequential(nn.BatchNorm1d(self.features_dim), nn.Dropout(0.5))

    def forward(self, observations):
        return self.uncertain(super().forward(observations))


@pytest.mark.parametrize("agent", AGENTS)
def test_acting_and_targets_see_neither_dropout_nor_batch_statistics(agent):
    settings = {**SMALL, "policy_kwargs": {"lstm_hidden_size": 8, "features_extractor_class": Dropout}}
    model = agent("MlpLstmPolicy", "CartPole-v1", **settings)
    modes = []
    for net in (model.q_net, model.q_net_target):
        net.features_extractor.register_forward_hook(
            lambda module, inputs, output: modes.append((module is model.q_net.features_extractor, module.training))
        )
    model.learn(24)
    acting, updating = modes[:24], modes[24:]
    assert set(acting) == {(True, False)}
    # The states learned from, the states after them, and the target network's.
    assert updating == [(True, True), (True, True), (False, False)]
    observation = model.env.reset()
    actions = [model.predict(observation, deterministic=True)[1][0] for _ in range(3)]
    np.testing.assert_array_equal(actions[0], actions[1])


@pytest.mark.parametrize("agent", AGENTS)
def test_set_env_and_learning_twice(agent):
    model = agent("MlpLstmPolicy", "CartPole-v1", **SMALL).learn(40)
    model.set_env(make_vec_env("CartPole-v1"))
    model.learn(40, reset_num_timesteps=False)
    assert model.num_timesteps == 80
    model.learn(40)
    assert model.num_timesteps == 40
    with pytest.raises(AssertionError, match="number of environments"):
        model.set_env(make_vec_env("CartPole-v1", 2))
