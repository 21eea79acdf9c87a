import pytest
import torch

from sb3_permakey.common.memory.scan import linear_recurrence


def one_by_one(decays, inputs):
    values, state = [], torch.zeros_like(inputs[0])
    for decay, given in zip(decays, inputs, strict=True):
        state = decay * state + given
        values.append(state)
    return torch.stack(values)


def test_by_hand():
    """1, then half of it and 2, then nothing of that and 3, then all of it and -1."""
    decays = torch.tensor([9.0, 0.5, 0.0, 1.0])
    assert linear_recurrence(decays, torch.tensor([1.0, 2.0, 3.0, -1.0])).tolist() == [1.0, 2.5, 3.0, 2.0]


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 7, 8, 33])
def test_values_and_gradients_are_those_of_a_loop(steps):
    torch.manual_seed(0)
    decays = torch.rand(steps, 2, 3, dtype=torch.float64, requires_grad=True)
    inputs = torch.randn(steps, 2, 3, dtype=torch.float64, requires_grad=True)
    values, expected = linear_recurrence(decays, inputs), one_by_one(decays, inputs)
    torch.testing.assert_close(values, expected)
    weights = torch.randn_like(expected)
    got, want = (torch.autograd.grad((found * weights).sum(), (decays, inputs)) for found in (values, expected))
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("decay", [0.0, 1e-30, 0.5, 1.0])
def test_extreme_decays_over_long_windows_lose_nothing(decay):
    """In float32, over 2000 steps, whose decays together are far below the smallest number there is."""
    torch.manual_seed(0)
    decays = torch.full((2000, 1), decay, requires_grad=True)
    inputs = torch.randn(2000, 1, requires_grad=True)
    values = linear_recurrence(decays, inputs)
    exact = one_by_one(decays.double(), inputs.double())
    torch.testing.assert_close(values.double(), exact, rtol=1e-5, atol=1e-4)
    gradients = torch.autograd.grad(values.sum(), (decays, inputs))
    assert all(gradient.isfinite().all() for gradient in gradients)
    torch.testing.assert_close(
        gradients[1].double(), torch.autograd.grad(exact.sum(), inputs)[0].double(), rtol=1e-4, atol=1e-4
    )
