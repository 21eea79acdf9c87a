import copy

import pytest
import torch
from torch import nn

from sb3_permakey.common.clipped_step import clipped_step

OPTIMIZERS = {
    "AdamW": lambda parts: torch.optim.AdamW(parts, lr=0.1, eps=1e-4, fused=True),
    "Adam": lambda parts: torch.optim.Adam(parts, lr=0.1, fused=True),
    "Adam with decay": lambda parts: torch.optim.Adam(parts, lr=0.1, weight_decay=0.1, fused=True),
    "Adam, not fused": lambda parts: torch.optim.Adam(parts, lr=0.1),
    "amsgrad": lambda parts: torch.optim.AdamW(parts, lr=0.1, amsgrad=True, fused=True),
    "SGD": lambda parts: torch.optim.SGD(parts, lr=0.1, momentum=0.9),
}


def groups(layer):
    return [{"params": [layer.weight], "weight_decay": 0.2}, {"params": [layer.bias]}]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("most", [0.5, 1e6])
def test_is_clipping_and_a_step(name, most):
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    plain = copy.deepcopy(layer)
    parts = {"SGD": lambda layer: layer.parameters(), "Adam with decay": lambda layer: layer.parameters()}
    optimizers = [OPTIMIZERS[name](parts.get(name, groups)(one)) for one in (layer, plain)]
    for step in range(5):
        inputs = torch.randn(4, 3)
        for one, optimizer in zip((layer, plain), optimizers, strict=True):
            optimizer.zero_grad()
            (one(inputs).square().sum() * (step + 1)).backward()
        expected = nn.utils.clip_grad_norm_(plain.parameters(), most)
        optimizers[1].step()
        torch.testing.assert_close(clipped_step(optimizers[0], list(layer.parameters()), most), expected)
        torch.testing.assert_close(list(layer.parameters()), list(plain.parameters()))
        torch.testing.assert_close([part.grad for part in layer.parameters()], [p.grad for p in plain.parameters()])
    torch.testing.assert_close(optimizers[0].state_dict(), optimizers[1].state_dict())


def test_hooks_of_users_are_called():
    layer, seen = nn.Linear(3, 2), []
    optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
    optimizer.register_step_post_hook(lambda *arguments: seen.append(1))
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    for _ in range(3):
        layer(torch.ones(3)).sum().backward()
        clipped_step(optimizer, list(layer.parameters()), 1.0)
        schedule.step()
    assert len(seen) == 3


def test_parameters_without_gradients_stay():
    layer = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
    before = layer.weight.clone()
    assert clipped_step(optimizer, list(layer.parameters()), 1.0) == 0
    layer.bias.grad = torch.ones(2)
    clipped_step(optimizer, list(layer.parameters()), 1.0)
    clipped_step(optimizer, list(layer.parameters()), 1.0)
    assert torch.equal(layer.weight, before)
