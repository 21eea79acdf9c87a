import pytest
import torch
from torch_geometric.data import Batch, Data

from sb3_permakey.encoders.graphs import KeypointGraph

# On a line at 0, 1, 3 and 7 tenths.
LINE = torch.tensor([[[0.0, 0.0], [0.0, 0.1], [0.0, 0.3], [0.0, 0.7]]])


def heard(graph, positions=LINE):
    """Whom each receiver hears."""
    senders, receivers = graph.edges(positions).edge_index
    return {receiver: senders[receivers == receiver].tolist() for receiver in range(positions[..., 0].numel())}


def test_full_graphs_join_all_others():
    assert heard(KeypointGraph()) == {0: [1, 2, 3], 1: [0, 2, 3], 2: [0, 1, 3], 3: [0, 1, 2]}
    assert KeypointGraph().edges(LINE[:, :1]).edge_index.shape == (2, 0)


def test_the_nearest_are_heard():
    assert heard(KeypointGraph("knn", k=2)) == {0: [1, 2], 1: [0, 2], 2: [1, 0], 3: [2, 1]}
    assert heard(KeypointGraph("knn", k=1), torch.zeros(1, 3, 2)) == {0: [1], 1: [0], 2: [0]}


def test_those_near_are_heard():
    assert heard(KeypointGraph("radius", radius=0.31)) == {0: [1, 2], 1: [0, 2], 2: [0, 1], 3: []}


def test_edges_tell_place_and_distance_of_the_sender():
    positions = torch.tensor([[[0.0, 0.0], [0.3, -0.4]]])
    edges = KeypointGraph().edges(positions)
    assert edges.edge_index.tolist() == [[1, 0], [0, 1]]
    torch.testing.assert_close(edges.edge_attr, torch.tensor([[0.3, -0.4, 0.5], [-0.3, 0.4, 0.5]]))


@pytest.mark.parametrize("graph", [KeypointGraph(), KeypointGraph("knn"), KeypointGraph("radius", radius=0.8)])
def test_batches_are_laid_out_as_torch_geometrics(graph):
    torch.manual_seed(0)
    positions = torch.rand(4, 6, 2) * 2 - 1
    alone = [graph.edges(one[None]) for one in positions]
    batch = Batch.from_data_list(
        [Data(edge_index=edges.edge_index, edge_attr=edges.edge_attr, num_nodes=6) for edges in alone]
    )
    edges = graph.edges(positions)
    assert torch.equal(edges.edge_index, batch.edge_index)
    assert torch.equal(edges.edge_attr, batch.edge_attr)
    assert edges.edge_index.shape[1] > 0


def test_degrees():
    assert KeypointGraph().degrees(4).tolist() == [0, 0, 0, 4]
    assert KeypointGraph("knn", k=2).degrees(4).tolist() == [0, 0, 4]
    # Half of all pairs of places in a square of side 2 are less far apart than 1.02.
    degrees = KeypointGraph("radius", radius=1.02).degrees(5).float()
    mean = (degrees * torch.arange(len(degrees))).sum() / degrees.sum()
    assert degrees.sum() == 5000
    assert mean == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "tree"}, "graph must be one of full, knn, radius, not 'tree'"),
        ({"kind": "full", "k": 3}, "k is of graph='knn', not of 'full'"),
        ({"kind": "knn", "radius": 0.5}, "radius is of graph='radius', not of 'knn'"),
        ({"kind": "knn", "k": 0}, "k must be above 0, not 0"),
        ({"kind": "radius", "radius": -1.0}, "radius must be above 0, not -1.0"),
    ],
)
def test_wrong_graphs_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        KeypointGraph(**arguments)


def test_more_neighbours_than_there_are_are_refused():
    KeypointGraph("knn", k=4).check_count(5)
    with pytest.raises(ValueError, match="k must be from 1 to 3 for 4 keypoints, not 4"):
        KeypointGraph("knn").check_count(4)
