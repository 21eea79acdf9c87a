import pytest
import torch
from torch.nn import functional as F

from sb3_permakey.encoders import message_passing
from sb3_permakey.encoders.message_passing import incoming_messages, mean_messages


def inputs(graphs=5, count=4, units=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = (graphs, count, units), (graphs, count, units), (units, units), (units,)
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("graphs_at_once", [1, 2, 5])
def test_sums_over_the_other_nodes_and_their_gradients(graphs_at_once, monkeypatch):
    monkeypatch.setattr(message_passing, "VALUES_AT_ONCE", graphs_at_once * 4**2 * 3)
    receivers, senders, weight, bias = tensors = inputs()
    found = incoming_messages(*tensors)
    with torch.no_grad():
        torch.testing.assert_close(incoming_messages(*tensors), found)
        for graph in range(5):
            for node in range(4):
                others = [other for other in range(4) if other != node]
                sent = [F.relu(receivers[graph, node] + senders[graph, other]) for other in others]
                expected = sum(F.relu(weight @ values + bias) for values in sent)
                torch.testing.assert_close(found[graph, node], expected)
    assert torch.autograd.gradcheck(incoming_messages, tensors)


def test_a_graph_of_one_node_gets_no_messages():
    assert incoming_messages(*inputs(count=1)).abs().max() == 0


def test_graphs_larger_than_a_group_are_taken_one_by_one(monkeypatch):
    tensors = inputs()
    expected = incoming_messages(*tensors)
    monkeypatch.setattr(message_passing, "VALUES_AT_ONCE", 1)
    torch.testing.assert_close(incoming_messages(*tensors), expected)


@pytest.mark.parametrize("graphs_at_once", [1, 2, 5])
def test_means_over_all_nodes_and_their_gradients(graphs_at_once, monkeypatch):
    monkeypatch.setattr(message_passing, "MEANS_AT_ONCE", graphs_at_once * 4**2 * 3)
    receivers, senders, *_ = inputs()
    expected = F.relu(receivers.unsqueeze(2) + senders.unsqueeze(1)).mean(dim=2)
    torch.testing.assert_close(mean_messages(receivers, senders), expected)
    assert torch.autograd.gradcheck(mean_messages, (receivers, senders))
