import torch
from torch import nn

from sb3_permakey.common.resets import shrink_and_perturb


class Network(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        self.head = nn.Linear(2, 1)
        with torch.no_grad():
            for tensor in (*self.parameters(), *self.buffers()):
                tensor.fill_(value)


def test_the_kept_part_is_mixed_and_the_rest_fresh():
    network, fresh = Network(8), Network(4)
    shrink_and_perturb(network, fresh, network.encoder, 0.75)
    assert {tensor.flatten()[0].item() for tensor in network.encoder.parameters()} == {7.0}
    assert network.encoder[1].running_var.tolist() == [7.0, 7.0]
    # A count of batches cannot be mixed.
    assert network.encoder[1].num_batches_tracked.item() == 4
    assert {tensor.flatten()[0].item() for tensor in network.head.parameters()} == {4.0}
    assert {tensor.flatten()[0].item() for tensor in fresh.parameters()} == {4.0}
