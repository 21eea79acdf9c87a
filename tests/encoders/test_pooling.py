import torch

from sb3_permakey.encoders.pooling import mean_and_max


def test_mean_and_maximum_and_their_gradients():
    """Of ReLU's outputs, among which many are the largest alike."""
    torch.manual_seed(0)
    nodes = torch.randn(5, 3, 4).clamp(min=0).requires_grad_()
    weights = torch.randn(5, 8)
    plain = torch.cat([nodes.mean(dim=1), nodes.amax(dim=1)], dim=-1)
    [expected] = torch.autograd.grad((plain * weights).sum(), nodes)
    found = mean_and_max(nodes)
    torch.testing.assert_close(found, plain)
    [gradient] = torch.autograd.grad((found * weights).sum(), nodes)
    torch.testing.assert_close(gradient, expected)
    assert (nodes == nodes.amax(dim=1, keepdim=True)).sum() > 20, "no ties"
