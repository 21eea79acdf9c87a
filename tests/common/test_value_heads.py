import numpy as np
import pytest
import torch

from sb3_permakey.common.value_heads import CategoricalValues, QuantileValues, ScalarValues, make_values, project


def project_by_loops(places, probabilities, v_min, v_max):
    """Algorithm 1 of Bellemare et al. 2017, atom by atom."""
    atoms = len(probabilities)
    spacing = (v_max - v_min) / (atoms - 1)
    projected = np.zeros(atoms)
    for place, probability in zip(places, probabilities, strict=True):
        b = (min(max(place, v_min), v_max) - v_min) / spacing
        lower, upper = int(np.floor(b)), int(np.ceil(b))
        if lower == upper:
            projected[lower] += probability
        else:
            projected[lower] += probability * (upper - b)
            projected[upper] += probability * (b - lower)
    return projected


def targets_of(values, returns, discounts, outputs):
    """Targets of one step: R + d x."""
    places = returns.unsqueeze(-1) + discounts.unsqueeze(-1) * values.places(outputs)
    return values.targets(places, lambda: outputs)


def test_projection_by_hand():
    # Atoms -1, 0, 1. A quarter of the way from 0 to 1; below the first atom; above the last one.
    places = torch.tensor([[0.25, -3.0, 7.0]])
    probabilities = torch.tensor([[0.4, 0.5, 0.1]])
    assert torch.allclose(project(places, probabilities, -1, 1), torch.tensor([[0.5, 0.3, 0.2]]))


def test_projection_at_the_edges_keeps_all_probability():
    probabilities = torch.tensor([0.2, 0.3, 0.5])
    assert torch.allclose(project(torch.tensor([-1.0, 0.0, 1.0]), probabilities, -1, 1), probabilities)
    assert torch.allclose(project(torch.full((3,), 1.0), probabilities, -1, 1), torch.tensor([0.0, 0.0, 1.0]))
    assert torch.allclose(project(torch.full((3,), -1.0), probabilities, -1, 1), torch.tensor([1.0, 0.0, 0.0]))


def test_projection_equals_the_papers_loops():
    generator = torch.Generator().manual_seed(0)
    places = torch.rand(6, 51, generator=generator) * 30 - 15
    probabilities = torch.rand(6, 51, generator=generator).softmax(dim=-1)
    found = project(places, probabilities, -10, 10)
    for row in range(6):
        expected = project_by_loops(places[row].numpy(), probabilities[row].numpy(), -10, 10)
        assert np.allclose(found[row].numpy(), expected, atol=1e-5)


def test_categorical_targets_at_an_episodes_end_are_the_return():
    values = CategoricalValues(5, -2, 2)
    logits = torch.randn(2, 5)
    # Discount 0: all probability lies on the return, between the atoms 1 and 2 for 1.5.
    targets = targets_of(values, torch.tensor([1.5, -2.0]), torch.zeros(2), logits)
    assert torch.allclose(targets, torch.tensor([[0, 0, 0, 0.5, 0.5], [1.0, 0, 0, 0, 0]]), atol=1e-6)


def test_categorical_mean_follows_return_and_discount():
    values = CategoricalValues(201, -10, 10)
    logits = torch.randn(4, 201)
    # No atom leaves the range.
    returns, discounts = torch.tensor([0.3, -0.7, 0.2, 0.0]), torch.tensor([0.9, 0.5, 0.99**3, 1.0])
    targets = targets_of(values, returns, discounts, logits)
    expected = returns + discounts * values.expected(logits)
    assert torch.allclose(targets @ values.support, expected, atol=1e-4)
    assert torch.allclose(targets.sum(dim=-1), torch.ones(4), atol=1e-5)


def test_categorical_loss_is_cross_entropy_and_its_gradient():
    values = CategoricalValues(3, -1, 1)
    logits = torch.tensor([[1.0, 2.0, 5.0]]).log().requires_grad_()
    targets = torch.tensor([[0.5, 0.25, 0.25]])
    losses, errors = values.losses(logits, targets)
    # p = 1/8, 2/8, 5/8.
    expected = -(0.5 * np.log(1 / 8) + 0.25 * np.log(2 / 8) + 0.25 * np.log(5 / 8))
    assert losses.item() == pytest.approx(expected, abs=1e-6)
    assert not errors.requires_grad
    losses.sum().backward()
    assert torch.allclose(logits.grad, torch.tensor([[1 / 8, 2 / 8, 5 / 8]]) - targets, atol=1e-6)


@pytest.mark.parametrize("values", [ScalarValues(), QuantileValues(4), CategoricalValues(41, -4, 4)])
def test_learning_by_any_kind_finds_the_mean(values):
    """Fixed targets R + d v in the mean: what minimises the loss expects them."""
    torch.manual_seed(0)
    outputs = torch.zeros(1, values.outputs, requires_grad=True)
    optimizer = torch.optim.Adam([outputs], lr=0.05)
    categorical = isinstance(values, CategoricalValues)
    bootstrap = torch.full((1, values.outputs), 1.5)
    if categorical:
        # All probability at 1.6.
        bootstrap = torch.zeros(1, 41)
        bootstrap[0, 28] = 50.0
    for _ in range(600):
        targets = targets_of(values, torch.tensor([0.5]), torch.tensor([0.5]), bootstrap)
        losses, _ = values.losses(outputs, targets)
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
    expected = 1.3 if categorical else 1.25
    assert values.expected(outputs).item() == pytest.approx(expected, abs=0.03)


def test_make_values_says_what_there_is():
    assert make_values("quantile", 7, 51, -10, 10).outputs == 7
    with pytest.raises(ValueError, match="scalar"):
        make_values("noisy", 7, 51, -10, 10)
    with pytest.raises(ValueError, match="v_min"):
        CategoricalValues(51, 1, 1)
