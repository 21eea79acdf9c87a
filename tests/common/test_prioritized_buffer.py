import numpy as np
import pytest
import torch
from device_option import DEVICE
from gymnasium import spaces
from numbered_episodes import ACTIONS, BOX, EPISODE, NumberedEpisodes, check_windows

from sb3_permakey.common.prioritized_buffer import PrioritizedSequenceReplayBuffer


def make_buffer(buffer_size=40, n_envs=1, **kwargs):
    return PrioritizedSequenceReplayBuffer(
        buffer_size, BOX, ACTIONS, device=DEVICE, n_envs=n_envs, **{"sequence_length": 4, **kwargs}
    )


def firsts(samples):
    return samples.observations[0].squeeze(-1).cpu().numpy()


@pytest.mark.parametrize("seed", range(4))
def test_windows_stay_in_their_episodes_however_the_ring_turns(seed):
    rng = np.random.default_rng(seed)
    np.random.seed(seed)
    n_envs = int(rng.integers(1, 4))
    buffer = make_buffer(30 * n_envs, n_envs, burn_in=2)
    episodes = NumberedEpisodes(buffer, rng.integers(1, 14, size=(n_envs, 5)))
    for _ in range(8):
        episodes.write(int(rng.integers(1, 35)))
        samples = buffer.sample(300)
        check_windows(samples, episodes.ends, 4, set(episodes.number(episodes.step)))
        buffer.update_priorities(samples.indices, rng.random(300))


def test_a_window_begins_at_every_second_step_of_an_episode():
    np.random.seed(0)
    buffer = make_buffer()
    NumberedEpisodes(buffer, [[3, 10, 90]]).write(20)
    # Of the 3 steps one full window is not made: it begins with its episode. 10 steps: the last full one begins at 6.
    of_second, of_third = EPISODE + np.array([0, 2, 4, 6]), 2 * EPISODE + np.array([0, 2, 3])
    assert set(firsts(buffer.sample(500))) == {0.0, *of_second.astype(float), *of_third.astype(float)}


def test_draws_and_weights_follow_the_priorities():
    """Three windows with p = 1, 4, 9 and alpha = 1/2: drawn as 1 : 2 : 3, weighing (1, 1/2, 1/3)^beta."""
    np.random.seed(0)
    buffer = make_buffer(alpha=0.5, beta=2.0)
    NumberedEpisodes(buffer, [[1]]).write(3)
    first = buffer.sample(300)
    assert set(first.weights.tolist()) == {1.0}
    for episode, priority in enumerate((1.0, 4.0, 9.0)):
        chosen = firsts(first) == episode * EPISODE
        buffer.update_priorities(first.indices[chosen], np.full(chosen.sum(), priority))
    samples = buffer.sample(6000)
    episodes = (firsts(samples) // EPISODE).astype(int)
    np.testing.assert_allclose(np.bincount(episodes) / 6000, [1 / 6, 2 / 6, 3 / 6], atol=0.002)
    for episode, weight in enumerate((1.0, 1 / 4, 1 / 9)):
        torch.testing.assert_close(samples.weights[episodes == episode].mean(), torch.tensor(weight))


def test_new_windows_have_the_highest_priority_so_far():
    np.random.seed(0)
    buffer = make_buffer(alpha=1.0)
    episodes = NumberedEpisodes(buffer, [[1]]).write(1)
    buffer.update_priorities(buffer.sample(1).indices, np.array([50.0]))
    buffer.update_priorities(buffer.sample(1).indices, np.array([1.0]))
    episodes.write(1)
    drawn = firsts(buffer.sample(5100)) == EPISODE
    assert drawn.mean() == pytest.approx(50 / 51, abs=0.001)


def test_a_priority_of_zero_is_still_drawn():
    buffer = make_buffer(alpha=0.1)
    NumberedEpisodes(buffer, [[1]]).write(2)
    indices = np.unique(buffer.sample(100).indices)
    assert len(indices) == 2
    buffer.update_priorities(indices[:1], np.zeros(1))
    assert set(buffer.sample(100).indices) == set(indices)


def test_reset_forgets_everything():
    buffer = make_buffer()
    NumberedEpisodes(buffer, [[5]]).write(9)
    buffer.reset()
    with pytest.raises(ValueError, match="PrioritizedSequenceReplayBuffer has nothing to sample"):
        buffer.sample(1)
    NumberedEpisodes(buffer, [[5]]).write(1)
    assert firsts(buffer.sample(10)).tolist() == [0.0] * 10


def test_bad_arguments_are_refused_in_one_sentence():
    with pytest.raises(ValueError, match="alpha and beta must not be negative, got -1 and 0.6"):
        make_buffer(alpha=-1)
    with pytest.raises(ValueError, match="burn_in must not be negative, got -1"):
        make_buffer(burn_in=-1)
    with pytest.raises(ValueError, match="stores Discrete actions only"):
        PrioritizedSequenceReplayBuffer(40, BOX, spaces.Box(0, 1, (2,)))
