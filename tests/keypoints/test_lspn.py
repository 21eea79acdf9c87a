import pytest
import torch
from torch import nn

from sb3_permakey.keypoints.lspn import (
    LSPN,
    error_map,
    lspn_loss,
    normalise_maps,
    patch_errors,
    stack_error_maps,
    to_patches,
)

NEIGHBOURS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]


def gather_and_mlp(lspn: LSPN, features: torch.Tensor) -> torch.Tensor:
    """The slow, obvious form: cut patches out of the padded map, concatenate the eight around each, apply an MLP."""
    p = lspn.patch_size
    batch, channels, height, width = features.shape
    padded = nn.functional.pad(features, (p, p, p, p))
    first, *rest = (module for module in [lspn.neighbours, *lspn.head])
    weight = torch.cat([first.weight[:, :, dy + 1, dx + 1] for dy, dx in NEIGHBOURS], dim=1)
    predictions = torch.zeros(batch, channels * p * p, height // p, width // p)
    for i in range(height // p):
        for j in range(width // p):
            cut = [
                padded[:, :, (i + 1 + dy) * p : (i + 2 + dy) * p, (j + 1 + dx) * p : (j + 2 + dx) * p].flatten(1)
                for dy, dx in NEIGHBOURS
            ]
            hidden = torch.cat(cut, dim=1) @ weight.T
            for module in rest:
                if isinstance(module, nn.BatchNorm1d):
                    scale = module.weight / torch.sqrt(module.running_var + module.eps)
                    hidden = (hidden - module.running_mean) * scale + module.bias
                elif isinstance(module, nn.ReLU):
                    hidden = hidden.clamp_min(0)
                else:
                    hidden = hidden @ module.weight.T + (0 if module.bias is None else module.bias)
            predictions[:, :, i, j] = hidden
    return predictions


@pytest.mark.parametrize("patch_size", [1, 2, 3])
def test_convolution_form_equals_gathering_and_an_mlp(patch_size):
    torch.manual_seed(patch_size)
    lspn = LSPN(channels=5, patch_size=patch_size)
    for module in lspn.head:
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    features = torch.rand(2, 5, 12, 12)
    lspn.eval()
    with torch.no_grad():
        fast, slow = lspn(to_patches(features, patch_size)), gather_and_mlp(lspn, features)
    assert slow.abs().max() > 0.01
    assert torch.allclose(fast, slow, atol=1e-5)


def test_layer_sizes_are_the_papers():
    lspn = LSPN(channels=64, patch_size=2)
    assert lspn.neighbours.weight.shape == (512, 256, 3, 3)
    assert [module.weight.shape[:2] for module in lspn.head if isinstance(module, nn.Linear)] == [
        (256, 512),
        (256, 256),
    ]


def test_a_patch_never_sees_itself_even_after_training():
    lspn = LSPN(channels=3)
    optimizer = torch.optim.Adam(lspn.parameters(), lr=0.1)
    for _ in range(3):
        patches = to_patches(torch.rand(2, 3, 12, 12), 2)
        lspn_loss(patch_errors(lspn(patches), patches)).backward()
        optimizer.step()
    lspn.eval()
    patches = to_patches(torch.rand(1, 3, 12, 12), 2)
    changed = patches.clone()
    changed[:, :, 2, 3] += 1
    difference = (lspn(patches) - lspn(changed)).abs().sum(dim=1)[0]
    assert difference[2, 3] == 0
    assert difference[2, 2] > 0


def test_patches_of_a_map_that_they_do_not_divide():
    features = torch.rand(1, 4, 21, 21)
    patches = to_patches(features, 2)
    assert patches.shape == (1, 16, 11, 11)
    assert patches.sum() == pytest.approx(features.sum().item(), rel=1e-5)


def test_errors_and_error_map_by_hand():
    prediction, patches = torch.zeros(1, 2, 1, 2), torch.tensor([[[[1.0, 0.0]], [[3.0, 0.0]]]])
    errors = patch_errors(prediction, patches)
    assert errors.tolist() == [[[5.0, 0.0]]]
    assert lspn_loss(errors) == 2.5
    assert error_map(errors, patches)[0, 0, 0] == pytest.approx(5 / 2.001)


def test_a_constant_map_normalises_to_zero():
    maps = torch.stack([torch.full((2, 2), 7.0), torch.tensor([[1.0, 2.0], [3.0, 5.0]])])
    assert normalise_maps(maps).tolist() == [[[0, 0], [0, 0]], [[0, 0.25], [0.5, 1]]]


def test_stacked_maps_repeat_cells():
    stacked = stack_error_maps([torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.full((1, 1, 1), 9.0)], [2, 4], 4)
    assert stacked.shape == (1, 2, 4, 4)
    assert stacked[0, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    assert (stacked[0, 1] == 9).all()
