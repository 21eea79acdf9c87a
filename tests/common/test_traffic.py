"""What moves between host and device, counted on torch's device "meta", which has no values, in place of a GPU."""

import numpy as np
import pytest
from counting_env import KEYPOINTS, MIXED, SMALL, make_vec_env
from gymnasium import spaces

from benchmarks.speed.operations import Operations
from sb3_permakey import Rainbow, RecurrentDQN, RecurrentQRDQN
from sb3_permakey.common.presets import STRONG

META = {**SMALL, "device": "meta"}
PEAKS = spaces.Dict({**KEYPOINTS.spaces, "confidence": spaces.Box(0, 1, (3,)), "motion": spaces.Box(-1, 1, (3, 4))})
STRONGEST = {**STRONG, **{name: META[name] for name in ("learning_starts", "buffer_size", "batch_size", "device")}}
NO_WINDOWS = {name: value for name, value in META.items() if name not in ("sequence_length", "policy_kwargs")}
AGENTS = {
    "paper's": lambda: RecurrentDQN("PermaKeyPolicy", make_vec_env(1, KEYPOINTS), **META),
    "strong": lambda: RecurrentDQN("PermaKeyPolicy", make_vec_env(1, PEAKS), **STRONGEST),
    "R2D2's parts": lambda: RecurrentDQN(
        "MultiInputLstmPolicy",
        make_vec_env(2, MIXED),
        **{**META, "policy_kwargs": {"rnn_type": "gru", "n_lstm_layers": 2, "dueling": True}},
        burn_in=3,
        recurrent_state="stored",
        prioritized_replay=True,
        value_rescaling=True,
    ),
    "quantiles": lambda: RecurrentQRDQN("MlpLstmPolicy", make_vec_env(2), **META, burn_in=2),
    "Rainbow": lambda: Rainbow("PermaKeyPolicy", make_vec_env(2, PEAKS), **NO_WINDOWS),
    "Rainbow, quantiles": lambda: Rainbow("MlpPolicy", make_vec_env(1), **NO_WINDOWS, value_head="quantile"),
    "Rainbow, minGRU": lambda: Rainbow("MlpPolicy", make_vec_env(1), **NO_WINDOWS, memory="mingru", burn_in=2),
}


@pytest.mark.parametrize("name", AGENTS)
def test_an_update_and_a_step_copy_once_each_way(name, one_thread):
    with Operations():
        agent = AGENTS[name]().learn(30)
    with Operations() as update:
        agent.train(1, agent.batch_size)
    assert update.counts["to device"] == 1
    # Priorities go to the host's tree.
    assert update.counts["to host"] == agent.prioritized_replay
    with Operations() as step:
        agent._sample_action(0)
    assert (step.counts["to device"], step.counts["to host"]) == (1, 1)
    for operations in (update, step):
        # The host waits for no number and no shape.
        assert operations.counts["numbers read"] == operations.counts["shapes read"] == 0


def test_figures_of_updates_are_told_now_and_then():
    with Operations():
        agent = AGENTS["quantiles"]().learn(30)
        agent._tell_of_update()
    with Operations() as operations:
        for _ in range(100):
            agent._n_updates += 1
            agent._note_update(agent.q_net.head.advantages[0].weight.new_ones(4))
    assert operations.counts["to host"] == 1


def test_predict_copies_once_each_way():
    with Operations():
        agent = AGENTS["R2D2's parts"]()
        observation = agent.env.reset()
        _, state = agent.predict(observation)
    with Operations() as operations:
        agent.predict(observation, state, np.zeros(2, bool), deterministic=True)
    assert (operations.counts["to device"], operations.counts["to host"]) == (1, 1)


def test_a_number_that_is_read_is_counted():
    """The test above can fail."""
    with Operations():
        agent = AGENTS["Rainbow"]().learn(30)
    values = agent.q_net.values
    values.losses = lambda predicted, targets: (predicted.sum(-1), predicted.detach().sum(-1) * targets.sum().item())
    with Operations() as operations:
        agent.train(1, agent.batch_size)
    assert operations.counts["numbers read"] == 1
