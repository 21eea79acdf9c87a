"""All memories alike: steps, windows, starts, burn-in."""

import numpy as np
import pytest
import torch
from counting_env import SMALL, make_vec_env
from device_option import DEVICE

from sb3_permakey import Rainbow, RecurrentDQN
from sb3_permakey.common.memory import MEMORY_CELLS, GRUMemory, LSTMMemory, MinGRU, NoMemory, memory_cell
from sb3_permakey.common.memory.gated import pieces

STEPS, WINDOWS = 7, 5
STARTS = [
    [0, 0, 0, 0, 0, 0, 0],
    [1, 0, 0, 1, 0, 0, 0],
    [0, 1, 1, 0, 0, 0, 1],
    [0, 0, 0, 0, 1, 0, 0],
    [1, 1, 1, 1, 1, 1, 1],
]
"""Of each window: none, first and inside, two in a row and the last, after what counts, everywhere."""
LENGTHS = [7, 5, 7, 3, 1]

pytestmark = pytest.mark.usefixtures("one_thread")


class FromOne(MinGRU):
    """Begins with ones."""

    def initial_states(self, count, device):
        return tuple(torch.ones_like(part) for part in super().initial_states(count, device))

    def window(self, inputs, states=None, episode_starts=None, lengths=None):
        return super().window(inputs - 1, states, episode_starts, lengths)


def make(cell, layers=2):
    torch.manual_seed(0)
    return cell(3, 4, layers)


def states_of(cell):
    torch.manual_seed(1)
    parts, layers, units = cell.state_shape
    return tuple(torch.randn(layers, WINDOWS, units) for _ in range(parts))


@pytest.mark.parametrize("kind", MEMORY_CELLS.values())
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("with_starts", [False, True])
@pytest.mark.parametrize("with_lengths", [False, True])
@pytest.mark.parametrize("with_states", [False, True])
def test_a_window_is_its_steps_one_by_one(kind, layers, with_starts, with_lengths, with_states):
    cell = make(kind, layers)
    inputs = torch.randn(STEPS, WINDOWS, 3, requires_grad=True)
    starts = (
        torch.tensor(STARTS, dtype=torch.bool).t() if with_starts else torch.zeros(STEPS, WINDOWS, dtype=torch.bool)
    )
    lengths = torch.tensor(LENGTHS) if with_lengths else torch.full((WINDOWS,), STEPS)
    given = states_of(cell) if with_states else None
    outputs, after = cell.window(inputs, given, starts if with_starts else None, lengths if with_lengths else None)
    assert outputs.shape == (STEPS, WINDOWS, cell.outputs)

    states = cell.initial_states(WINDOWS, "cpu") if given is None else given
    expected, reached = [], [states]
    for step in range(STEPS):
        output, states = cell.step(inputs[step], states, starts[step])
        expected.append(output)
        reached.append(states)
    counts = torch.arange(STEPS).unsqueeze(1) < lengths
    expected = torch.stack(expected)
    torch.testing.assert_close(outputs[counts], expected[counts])
    for part, got in enumerate(after):
        want = torch.stack([reached[length][part][:, window] for window, length in enumerate(lengths)], dim=1)
        torch.testing.assert_close(got, want)

    weights = torch.randn_like(expected)[counts]
    got, want = (
        torch.autograd.grad((values[counts] * weights).sum(), [inputs, *cell.parameters()])
        for values in (outputs, expected)
    )
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", MEMORY_CELLS.values())
def test_a_step_where_an_episode_starts_knows_nothing_before_it(kind):
    cell = make(kind)
    inputs, starts = torch.randn(WINDOWS, 3), torch.tensor([True, False, True, False, True])
    outputs, _ = cell.step(inputs, states_of(cell), starts)
    fresh, _ = cell.step(inputs, cell.initial_states(WINDOWS, "cpu"), torch.zeros(WINDOWS, dtype=torch.bool))
    torch.testing.assert_close(outputs[starts], fresh[starts])
    assert cell.remembers != torch.equal(outputs, fresh)


def test_cells_by_name_and_class():
    assert [memory_cell(name) for name in ("lstm", "gru", "mingru", "none")] == [
        LSTMMemory,
        GRUMemory,
        MinGRU,
        NoMemory,
    ]
    assert memory_cell(MinGRU) is MinGRU
    for other in ("rnn", torch.nn.LSTM, None):
        with pytest.raises(ValueError, match="memory must be one of .*'mingru'.* or a MemoryCell's class, got"):
            memory_cell(other, "memory")


def test_parts_of_windows_by_hand():
    starts = torch.tensor([[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 1]], dtype=torch.bool)
    windows, firsts, lasts = pieces(starts, torch.tensor([4, 4, 2]))
    assert windows.tolist() == [0, 0, 1, 2, 2]
    assert firsts.tolist() == [0, 2, 0, 0, 1]
    assert lasts.tolist() == [2, 4, 4, 1, 2]


@pytest.mark.parametrize("kind", [LSTMMemory, GRUMemory])
def test_weights_have_the_library_s_names(kind):
    """Agents saved before there were cells hold rnn.weight_ih_l0 and so on."""
    assert set(make(kind, 1).state_dict()) == {"weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"}


def test_min_gru_by_hand():
    """Gates of 1/2 and 3/4 that are kept, candidates of 2 x + 1."""
    cell = MinGRU(1, 1, 1)
    with torch.no_grad():
        cell.keep[0].weight.fill_(np.log(3))
        cell.keep[0].bias.zero_()
        cell.candidate[0].weight.fill_(2)
        cell.candidate[0].bias.fill_(1)
    outputs, (after,) = cell.window(torch.tensor([0.0, 1.0, 0.0]).reshape(3, 1, 1), (torch.full((1, 1, 1), 4.0),))
    # 4/2 + 1/2, 3/4 of that and 1/4 of 3, half of that and 1/2.
    torch.testing.assert_close(outputs.flatten(), torch.tensor([2.5, 2.625, 1.8125]))
    assert after.item() == outputs[-1].item()


@pytest.mark.parametrize("memory", ["mingru", MinGRU])
@pytest.mark.parametrize("agent", [RecurrentDQN, Rainbow])
def test_agents_take_a_cell_by_name_and_class(agent, memory, tmp_path):
    options = {"recurrent_state": "stored", "burn_in": 2, "seed": 0}
    if agent is Rainbow:
        model = Rainbow("MlpPolicy", make_vec_env(2), learning_starts=20, memory=memory, buffer_size=200, **options)
    else:
        policy = {"rnn_type": memory, "lstm_hidden_size": 8}
        model = RecurrentDQN("MlpLstmPolicy", make_vec_env(2), **{**SMALL, **options, "policy_kwargs": policy})
    model.learn(60)
    assert isinstance(model.q_net.rnn, MinGRU)
    assert model._n_updates > 3
    model.save(tmp_path / "model")
    loaded = agent.load(tmp_path / "model", device=DEVICE)
    obs = model.env.reset()
    assert np.array_equal(model.predict(obs, deterministic=True)[1][0], loaded.predict(obs, deterministic=True)[1][0])


def test_replay_keeps_a_cell_s_own_initial_state():
    policy = {"rnn_type": FromOne, "lstm_hidden_size": 8}
    model = RecurrentDQN(
        "MlpLstmPolicy", make_vec_env(1), **{**SMALL, "policy_kwargs": policy, "recurrent_state": "stored"}
    )
    model.learn(60)
    buffer = model.replay_buffer
    slots = np.arange(buffer._written[0])
    firsts = buffer._episode_first[0, slots] == slots
    assert (buffer._states[0, slots][firsts] == 1).all()
    assert (buffer._states[0, slots][~firsts] != 1).any()


def test_stored_states_need_a_memory():
    policy = {"rnn_type": "none"}
    with pytest.raises(ValueError, match='recurrent_state="stored" needs a memory'):
        RecurrentDQN(
            "MlpLstmPolicy", make_vec_env(1), **{**SMALL, "policy_kwargs": policy, "recurrent_state": "stored"}
        )


@pytest.mark.parametrize("kind", [LSTMMemory, GRUMemory])
@pytest.mark.parametrize("layers", [1, 2])
def test_steps_that_do_not_count_change_nothing_without_packing_too(kind, layers):
    """As a GPU does it, so that no shape depends on lengths."""
    cell = make(kind, layers)
    inputs, lengths, states = torch.randn(STEPS, WINDOWS, 3), torch.tensor(LENGTHS), states_of(cell)
    expected, after = cell.window(inputs, states, lengths=lengths)
    outputs, found = cell.padded(inputs, states, lengths)
    torch.testing.assert_close(found, after)
    counts = (torch.arange(STEPS).unsqueeze(1) < lengths).unsqueeze(-1)
    torch.testing.assert_close(outputs * counts, expected * counts)
