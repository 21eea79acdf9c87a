import numpy as np
import pytest
import torch
from sb3_contrib.common.utils import quantile_huber_loss as contrib_quantile_huber_loss

from sb3_permakey.common.targets import (
    bootstrapped,
    masked_mean,
    n_step_targets,
    quantile_huber_loss,
    rescale_values,
    sequence_priorities,
    unscale_values,
    values_of,
)


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


def test_quantiles_move_as_values_do():
    """Two quantiles of two states, one step: y = r + d v', each quantile on its own."""
    quantiles = torch.tensor([[[0.0, 0.0]], [[2.0, 4.0]]])
    targets = n_step_targets(column(1.0, 0.0), column(0.5, 0.5), quantiles, flags(True, False), 1)
    assert targets.tolist() == [[[2.0, 3.0]]]


def test_bootstrapped_values_are_those_that_the_targets_bootstrap_from():
    """States whose values are their own numbers, without rewards and discounts: the target is the number."""
    generator = torch.Generator().manual_seed(0)
    acted = torch.rand(12, 30, generator=generator) < 0.7
    numbers = torch.arange(12.0).unsqueeze(1).expand(12, 30)
    ones = torch.ones(12, 30)
    for n_steps in (1, 3, 5):
        expected = n_step_targets(torch.zeros(12, 30), ones, numbers, acted, n_steps)
        assert torch.equal(bootstrapped(numbers.unsqueeze(-1), acted, n_steps).squeeze(-1), expected)


def test_values_of_actions():
    values = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]])
    assert values_of(torch.tensor([1, 0]), values).tolist() == [[3.0, 4.0], [5.0, 6.0]]


def test_value_rescaling_by_hand():
    """h(3) = sqrt(4) - 1 + 3 eps, h(-8) = -(sqrt(9) - 1) - 8 eps."""
    torch.testing.assert_close(rescale_values(torch.tensor([3.0, -8.0, 0.0])), torch.tensor([1.003, -2.008, 0.0]))


def test_value_rescaling_is_undone():
    values = torch.tensor([-1e4, -250.0, -1.0, -1e-3, 0.0, 1e-4, 0.5, 12.0, 999.0, 1e5])
    torch.testing.assert_close(unscale_values(rescale_values(values)), values, rtol=1e-5, atol=1e-6)


def test_value_rescaling_in_float32_is_that_of_float64():
    """Against the formulas as they are published, in float64."""
    sizes = torch.tensor([0.0, *np.logspace(-7, 6, 60).tolist()])
    values = torch.cat([sizes, -sizes])
    wide, eps = values.double(), 1e-3
    rescaled = wide.sign() * ((wide.abs() + 1).sqrt() - 1) + eps * wide
    root = ((1 + 4 * eps * (wide.abs() + 1 + eps)).sqrt() - 1) / (2 * eps)
    unscaled = wide.sign() * (root.square() - 1)
    assert rescale_values(values).dtype == unscale_values(values).dtype == torch.float32
    torch.testing.assert_close(rescale_values(values).double(), rescaled, rtol=5e-7, atol=1e-15)
    # Around 0 the published inverse loses digits in float64 too.
    torch.testing.assert_close(unscale_values(values).double(), unscaled, rtol=5e-7, atol=1e-12)


def test_quantile_huber_loss_by_hand():
    """Quantiles 0 and 1 at 1/4 and 3/4, one target at 2.

    Errors 2 and 1: Huber 1.5 and 0.5; both are below the target, so weighted 1/4 and 3/4: 0.375 + 0.375.
    """
    assert quantile_huber_loss(torch.tensor([0.0, 1.0]), torch.tensor([2.0])).item() == pytest.approx(0.75)
    # Above the target: errors -2 and -1, weights 3/4 and 1/4.
    assert quantile_huber_loss(torch.tensor([4.0, 3.0]), torch.tensor([2.0])).item() == pytest.approx(1.125 + 0.125)


@pytest.mark.parametrize("scale", [0.3, 2.0, 500.0])
def test_quantile_huber_loss_and_its_gradient_are_sb3_contribs(scale):
    torch.manual_seed(0)
    quantiles = (torch.randn(6, 5) * scale).requires_grad_()
    targets = torch.randn(6, 7) * scale
    targets[0, :2] = quantiles[0, 0].detach()
    results = []
    for loss in (
        quantile_huber_loss(quantiles, targets).mean(),
        contrib_quantile_huber_loss(quantiles, targets, sum_over_quantiles=True),
    ):
        results.append((loss.detach(), torch.autograd.grad(loss, quantiles)[0]))
    torch.testing.assert_close(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1])


@pytest.mark.parametrize("outlier", [0.0, 1e5, -1e5])
@pytest.mark.parametrize(("middle", "spread"), [(0, 0.1), (0, 30), (1e5, 1), (1e6, 0.5), (-1e4, 1e4)])
def test_quantile_huber_loss_in_float32_is_that_of_all_pairs_in_float64(middle, spread, outlier):
    torch.manual_seed(0)
    quantiles, targets = torch.randn(2, 8, 200) * spread + middle
    targets[:, 0] += outlier
    # On the edges between the loss's pieces.
    targets[:3, 1:20] = quantiles[:3, :19] + torch.tensor([[-1.0], [0.0], [1.0]])
    quantiles.requires_grad_()
    losses = quantile_huber_loss(quantiles, targets)
    slopes = torch.autograd.grad(losses.sum(), quantiles)[0]
    assert losses.dtype == torch.float32

    gaps = quantiles.detach().double().unsqueeze(-1) - targets.double().unsqueeze(-2)
    midpoints = (torch.arange(200, dtype=torch.float64).unsqueeze(-1) + 0.5) / 200
    weights = torch.where(gaps > 0, 1 - midpoints, midpoints)
    huber = torch.where(gaps.abs() <= 1, gaps.square() / 2, gaps.abs() - 0.5)
    torch.testing.assert_close(losses.double(), (weights * huber).mean(dim=-1).sum(dim=-1), rtol=1e-5, atol=0)
    torch.testing.assert_close(slopes.double(), (weights * gaps.clamp(-1, 1)).mean(dim=-1), rtol=0, atol=1e-5)


def test_sequence_priorities_by_hand():
    """0.9 max + 0.1 mean of |delta| where the mask is true."""
    errors = torch.tensor([[1.0, -2.0], [-3.0, 9.0]])
    mask = torch.tensor([[True, True], [True, False]])
    torch.testing.assert_close(sequence_priorities(errors, mask, 0.9), torch.tensor([2.9, 2.0]))


def test_masked_mean_counts_only_the_mask():
    assert masked_mean(torch.tensor([1.0, 100.0, 3.0]), torch.tensor([True, False, True])).item() == 2.0
