"""Agents whose updates and steps of acting are captured, with a stand-in for CUDA's graphs where there is no GPU."""

import numpy as np
import pytest
import torch
from device_option import DEVICE
from recorder import Recorder
from stable_baselines3.common.env_util import make_vec_env

from sb3_permakey import Rainbow, RecurrentDQN
from sb3_permakey.common.recurrent_acting import RecurrentActing
from sb3_permakey.common.recurrent_q_learning import USELESS_CAPTURES
from sb3_permakey.keypoints import captured
from sb3_permakey.keypoints.captured import CHANGES_TOLD

SMALL = {"learning_starts": 20, "buffer_size": 300, "batch_size": 8, "device": DEVICE, "seed": 0}
MADE = {
    "Rainbow": lambda: Rainbow("MlpPolicy", make_vec_env("CartPole-v1", 1, seed=0), **SMALL, reset_interval=60),
    "RecurrentDQN": lambda: RecurrentDQN(
        "MlpLstmPolicy",
        make_vec_env("CartPole-v1", 1, seed=0),
        **SMALL,
        burn_in=2,
        sequence_length=4,
        policy_kwargs={"lstm_hidden_size": 16},
    ),
    "stored states": lambda: RecurrentDQN(
        "MlpLstmPolicy",
        make_vec_env("CartPole-v1", 2, seed=0),
        **SMALL,
        recurrent_state="stored",
        policy_kwargs={"lstm_hidden_size": 16},
    ),
}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def captures(monkeypatch):
    """As it would be on a GPU with cuda_graph=True."""
    monkeypatch.setattr(RecurrentActing, "_captures", True)
    monkeypatch.setattr(captured, "CudaCaptures", lambda: Recorder)
    Recorder.made = 0


@pytest.mark.parametrize("name", MADE)
def test_an_agent_whose_steps_and_updates_are_replayed_learns_the_same(name, request):
    """Rainbow's over a reset, after which the optimizer's state is another."""
    plain = MADE[name]().learn(80)
    request.getfixturevalue("captures")
    replayed = MADE[name]().learn(80)
    assert Recorder.made == (3 if name == "Rainbow" else 2)
    kept = [model.replay_buffer.contents() for model in (plain, replayed)]
    for part in kept[0]:
        np.testing.assert_array_equal(kept[0][part], kept[1][part], err_msg=part)
    for one, other in zip(plain.policy.parameters(), replayed.policy.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_rate_that_always_changes_is_told(captures):
    settings = {**SMALL, "learning_rate": lambda progress: 1e-4 * progress}
    model = Rainbow("MlpPolicy", "CartPole-v1", **settings, gradient_steps=1)
    with pytest.warns(UserWarning, match=USELESS_CAPTURES[:40]):
        model.learn(SMALL["learning_starts"] + CHANGES_TOLD + 5)


def test_without_a_gpu_nothing_is_captured():
    model = Rainbow("MlpPolicy", "CartPole-v1", **{**SMALL, "device": "cpu"}, cuda_graph=True).learn(30)
    assert model._captured is model._captured_acting is None
    assert model._n_updates > 0
