import numpy as np
import pytest
import torch

from sb3_permakey.common.targets import double_q_values, masked_mean, n_step_targets


def column(*values):
    return torch.tensor(values, dtype=torch.float64).unsqueeze(1)


def flags(*values):
    return torch.tensor(values, dtype=torch.bool).unsqueeze(1)


def test_two_steps_by_hand():
    targets = n_step_targets(
        rewards=column(1, 2, 4, 8, 16),
        discounts=column(0.5, 0.5, 0.5, 0.5, 0.5),
        bootstrap_values=column(100, 200, 300, 400, 500),
        acted=flags(1, 1, 1, 1, 1),
        n_steps=2,
    )
    # 1 + 2/2 + 300/4, 2 + 4/2 + 400/4, 4 + 8/2 + 500/4
    assert targets.squeeze(1).tolist() == [77.0, 104.0, 133.0]


def test_nothing_is_added_after_a_true_end():
    targets = n_step_targets(
        rewards=column(1, 2, 0, 0, 0),
        discounts=column(0.5, 0, 0.5, 0.5, 0.5),
        bootstrap_values=column(100, 200, 300, 300, 300),
        acted=flags(1, 1, 0, 0, 0),
        n_steps=3,
    )
    assert targets.squeeze(1).tolist() == [1 + 0.5 * 2, 2.0]


def test_a_time_limit_bootstraps_early_from_its_last_state():
    targets = n_step_targets(
        rewards=column(1, 2, 7, 7, 7),
        discounts=column(0.5, 0.5, 0.5, 0.5, 0.5),
        bootstrap_values=column(100, 200, 300, 300, 300),
        acted=flags(1, 1, 0, 0, 0),
        n_steps=3,
    )
    assert targets.squeeze(1).tolist() == [1 + 0.5 * 2 + 0.25 * 300, 2 + 0.5 * 300]


def slow_target(rewards, discounts, values, acted, n_steps, step):
    total, discount = 0.0, 1.0
    for now in range(step, step + n_steps):
        if not acted[now]:
            return total + discount * values[now]
        total += discount * rewards[now]
        discount *= discounts[now]
    return total + discount * values[step + n_steps]


@pytest.mark.parametrize("n_steps", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_random_windows_agree_with_an_obvious_loop(n_steps, seed):
    rng = np.random.default_rng(seed)
    n_states, batch = n_steps + 6, 7
    rewards, values = rng.normal(size=(2, n_states, batch))
    acted = rng.random((n_states, batch)) < 0.8
    discounts = 0.9 * (rng.random((n_states, batch)) < 0.8)
    targets = n_step_targets(*map(torch.as_tensor, (rewards, discounts, values, acted)), n_steps)
    expected = [
        [slow_target(rewards[:, b], discounts[:, b], values[:, b], acted[:, b], n_steps, step) for b in range(batch)]
        for step in range(n_states - n_steps)
    ]
    np.testing.assert_allclose(targets.numpy(), expected)


def test_unlike_shapes_and_short_windows_are_refused():
    with pytest.raises(ValueError, match="must have one shape"):
        n_step_targets(column(1, 2), column(1), column(1, 2), flags(1, 1), 1)
    for n_steps in (0, 2):
        with pytest.raises(ValueError, match="n_steps must be at least 1 and less than the 2 states"):
            n_step_targets(column(1, 2), column(1, 1), column(1, 2), flags(1, 1), n_steps)


def test_double_q_values_chooses_online_and_values_by_target():
    online = torch.tensor([[[1.0, 3.0, 2.0], [9.0, 0.0, 0.0]]])
    target = torch.tensor([[[10.0, 20.0, 30.0], [-1.0, 5.0, 6.0]]])
    assert double_q_values(online, target).tolist() == [[20.0, -1.0]]
    assert double_q_values(target, target).tolist() == [[30.0, 6.0]]


def test_masked_mean_counts_only_the_mask():
    assert masked_mean(torch.tensor([1.0, 100.0, 3.0]), torch.tensor([True, False, True])).item() == 2.0
