import numpy as np
import pytest
from device_option import DEVICE
from gymnasium import spaces

from sb3_permakey.common.transition_buffer import PrioritizedReplayBuffer

BOX, ACTIONS = spaces.Box(-1e6, 1e6, (1,), np.float32), spaces.Discrete(4)


def filled(episodes, *, slots=40, **kwargs):
    """A buffer of episodes [(rewards, how it ends)]; the observation counts all states, the action is its remainder."""
    buffer = PrioritizedReplayBuffer(slots, BOX, ACTIONS, device=DEVICE, **kwargs)
    state = 0.0
    for rewards, end in episodes:
        for number, reward in enumerate(rewards):
            last = number == len(rewards) - 1
            infos = [{"TimeLimit.truncated": last and end == "time"}]
            done = np.array([last and end != "runs"])
            action = np.array([int(state) % 4])
            buffer.add(np.array([[state]]), np.array([[state + 1]]), action, np.array([reward]), done, infos)
            state += 1
        state += 1
    return buffer


def by_state(buffer, n_steps, gamma, draws=300):
    """Return, discount and next state of each state drawn."""
    batch = buffer.sample_transitions(draws, n_steps, gamma)
    rows = zip(
        batch.observations[:, 0].tolist(),
        batch.returns.tolist(),
        batch.discounts.tolist(),
        batch.next_observations[:, 0].tolist(),
        batch.actions.tolist(),
        strict=True,
    )
    return {int(state): values for state, *values in rows}


def test_returns_by_hand_and_cut_where_episodes_end():
    np.random.seed(0)
    buffer = filled([([1, 2, 4, 8], "dies"), ([1, 1, 1], "time"), ([5, 7], "runs")], lookahead=3)
    found = by_state(buffer, 3, 0.5)
    assert set(found) == {0, 1, 2, 3, 5, 6, 7, 9, 10}
    # 1 + 2/2 + 4/4, then half a power of 3 of state 3.
    assert found[0] == pytest.approx([3.0, 0.125, 3, 0])
    # 2 + 4/2 + 8/4 ends with death: nothing follows.
    assert found[1] == pytest.approx([6.0, 0.0, 4, 1])
    assert found[3] == pytest.approx([8.0, 0.0, 4, 3])
    # A time limit after state 7: its last state, 8, is bootstrapped from, over fewer steps.
    assert found[5] == pytest.approx([1.75, 0.125, 8, 1])
    assert found[6] == pytest.approx([1.5, 0.25, 8, 2])
    assert found[7] == pytest.approx([1.0, 0.5, 8, 3])
    # So is the newest state of an episode that goes on.
    assert found[9] == pytest.approx([8.5, 0.25, 11, 1])
    assert found[10] == pytest.approx([7.0, 0.5, 11, 2])


def test_n_and_discount_are_chosen_when_drawn():
    np.random.seed(0)
    buffer = filled([([1, 2, 4, 8], "dies")], lookahead=3)
    assert by_state(buffer, 1, 0.9)[0] == pytest.approx([1.0, 0.9, 1, 0])
    assert by_state(buffer, 2, 1.0)[0] == pytest.approx([3.0, 1.0, 2, 0])
    assert by_state(buffer, 10, 1.0)[0] == pytest.approx([15.0, 0.0, 4, 0])


def test_a_full_ring_gives_no_transition_over_its_seam():
    np.random.seed(0)
    buffer = filled([(list(range(11)), "dies")] * 5, slots=30, lookahead=3)
    for state, (total, discount, following, _) in by_state(buffer, 3, 1.0, draws=500).items():
        place = state % 12
        steps = min(3, 11 - place)
        assert following == state + steps
        assert total == sum(range(place, place + steps))
        assert discount == (0.0 if place + steps == 11 else 1.0)


def test_priorities_decide_how_often_and_weights_make_up_for_it():
    np.random.seed(0)
    buffer = filled([([0] * 8, "runs")], lookahead=1, alpha=0.5, beta=0.5)
    everything = buffer.sample_transitions(64, 1, 0.9)
    slots = {int(state): index for state, index in zip(everything.observations[:, 0], everything.indices, strict=True)}
    order = np.array([slots[state] for state in range(8)])
    buffer.update_priorities(order, np.array([1.0, 1, 1, 1, 1, 1, 1, 16]))
    batch = buffer.sample_transitions(2200, 1, 0.9)
    states = batch.observations[:, 0].cpu().numpy().astype(int)
    shares = np.bincount(states, minlength=8) / 2200
    # Roots: 1 and 4 of 11 in all.
    assert shares == pytest.approx([1 / 11] * 7 + [4 / 11], abs=0.01)
    weights = batch.weights.cpu().numpy()
    assert weights[states == 0] == pytest.approx(1.0)
    assert weights[states == 7] == pytest.approx(0.5)


def test_dict_observations_and_several_environments():
    space = spaces.Dict({"a": BOX, "b": spaces.Box(0, 255, (2, 2), np.uint8)})
    buffer = PrioritizedReplayBuffer(60, space, ACTIONS, device=DEVICE, n_envs=2, lookahead=2)
    for step in range(10):

        def observe(number):
            return {"a": np.array([[number], [number + 100]]), "b": np.full((2, 2, 2), number, np.uint8)}

        buffer.add(
            observe(step), observe(step + 1), np.array([0, 1]), np.array([1.0, 2.0]), np.zeros(2, bool), [{}, {}]
        )
    batch = buffer.sample_transitions(50, 2, 1.0)
    first = batch.observations["a"][:, 0]
    assert ((batch.next_observations["a"][:, 0] - first).unique() <= 2).all()
    assert set(batch.actions[first >= 100].tolist()) == {1}
    assert set(batch.actions[first < 100].tolist()) == {0}
    assert batch.observations["b"].shape == (50, 2, 2)
