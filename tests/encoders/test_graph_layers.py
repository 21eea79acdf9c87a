"""KeypointGNN with layers of torch-geometric, and with ones of a user's own."""

import copy
import os
import subprocess
import sys
import tempfile

import pytest
import torch
from conftest import MovingSquare
from hypothesis import given, settings
from hypothesis import strategies as st
from keypoint_spaces import keypoint_space, observations_of
from sb3_contrib import QRDQN, RecurrentPPO
from stable_baselines3 import DQN, PPO
from torch import nn
from torch_geometric.nn import GATv2Conv, MessagePassing

from sb3_permakey import KeypointGNN, PermaKeyObservation, Rainbow, RecurrentDQN
from sb3_permakey.encoders.graph_layers import InteractionConv
from sb3_permakey.encoders.graphs import KeypointGraph
from sb3_permakey.encoders.interaction import InteractionNetwork

LAYERS = {
    "interaction": {},
    "GATv2Conv": {"heads": 4},
    "TransformerConv": {"heads": 2},
    "GINEConv": {},
    "PNAConv": {},
    "GCNConv": {},
    "SAGEConv": {},
}
GRAPHS = {"full": {}, "knn": {"k": 2}, "radius": {"radius": 0.9}}
COUNT = 5


@pytest.fixture(autouse=True, scope="module")
def generated_code(tmp_path_factory):
    """torch-geometric leaves a file of generated code for each class of layers."""
    before, tempfile.tempdir = tempfile.tempdir, str(tmp_path_factory.mktemp("generated"))
    yield
    tempfile.tempdir = before


def made(conv, graph="full", **arguments):
    torch.manual_seed(0)
    return KeypointGNN(
        keypoint_space(COUNT, confidence=True),
        features_dim=8,
        units=16,
        conv=conv,
        conv_kwargs=LAYERS.get(conv),
        graph=graph,
        **{**GRAPHS[graph], **arguments},
    )


def seen(batch=3):
    observations = observations_of(COUNT, batch, confidence=True)
    return {**observations, "keypoints": observations["keypoints"] * 2 - 1}


def test_the_quick_interaction_network_is_the_message_passing_layer():
    torch.manual_seed(0)
    quick, general = InteractionNetwork(8), InteractionConv(8)
    general.load_state_dict(quick.state_dict())
    assert isinstance(general, MessagePassing)
    outputs = []
    for layer in (quick, general):
        torch.manual_seed(1)
        nodes, edge = torch.rand(3, 4, 8, requires_grad=True), torch.rand(1, 8, requires_grad=True)
        if layer is quick:
            found = layer(nodes, edge)
        else:
            index = KeypointGraph().edges(torch.zeros(3, 4, 2)).edge_index
            found = layer(nodes.flatten(0, 1), index, edge).view_as(nodes)
        (found * torch.rand(3, 4, 8)).sum().backward()
        outputs.append([found, nodes.grad, edge.grad, *(parameter.grad for parameter in layer.parameters())])
    for of_quick, of_general in zip(*outputs, strict=True):
        assert of_quick.abs().max() > 0
        torch.testing.assert_close(of_quick, of_general, atol=1e-5, rtol=1e-4)


def test_the_papers_network_does_not_import_the_library():
    """Which takes as long as all other imports together."""
    program = """if True:
        import sys
        import numpy as np
        from gymnasium import spaces
        from sb3_permakey import KeypointGNN
        boxes = {name: spaces.Box(-1, 1, (3, size), np.float32) for name, size in (("keypoints", 2), ("features", 4))}
        KeypointGNN(spaces.Dict(boxes))
        assert "torch_geometric" not in sys.modules
        KeypointGNN(spaces.Dict(boxes), conv="GCNConv")
        assert "torch_geometric" in sys.modules
    """
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "TMPDIR": tempfile.gettempdir()})


def test_weights_of_a_full_graph_fit_another():
    full, near = made("interaction"), made("interaction", "knn")
    names = set(full.state_dict()) - {"encode_edges.0.weight"}
    near.load_state_dict({name: full.state_dict()[name] for name in names}, strict=False)
    assert set(near.state_dict()) - names == {"encode_edges.0.weight"}


@pytest.mark.parametrize("steps", [50, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("conv", LAYERS)
def test_every_layer_learns(conv, graph, steps, one_thread):
    """How far apart the two first keypoints are, which no keypoint knows by itself."""
    gnn = made(conv, graph, num_layers=2)
    network = nn.Sequential(gnn, nn.Linear(8, 1))
    optimizer = torch.optim.Adam(network.parameters(), 4e-3)
    losses = []
    for _ in range(steps):
        observations = seen(256)
        distances = (observations["keypoints"][:, 0] - observations["keypoints"][:, 1]).norm(dim=-1, keepdim=True)
        loss = (network(observations) - distances).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    # The mean distance alone would leave its variance, .25.
    assert steps == 50 or sum(losses[-50:]) / 50 < 0.2
    assert all(parameter.grad is not None for parameter in gnn.parameters())


@settings(max_examples=20, deadline=None)
@given(
    conv=st.sampled_from(sorted(LAYERS)),
    graph=st.sampled_from(sorted(GRAPHS)),
    order=st.permutations(range(COUNT)),
    seed=st.integers(0, 2**16),
)
def test_permuted_keypoints_give_permuted_nodes(conv, graph, order, seed):
    gnn = made(conv, graph, num_layers=2, aggregate="pool").eval()
    torch.manual_seed(seed)
    observations = seen()
    permuted = {name: values[:, order] for name, values in observations.items()}
    with torch.no_grad():
        torch.testing.assert_close(gnn.nodes(permuted), gnn.nodes(observations)[:, order], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(gnn(permuted), gnn(observations), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("conv", [conv for conv in LAYERS if conv not in ("interaction", "GCNConv", "SAGEConv")])
def test_edges_reach_the_layers_that_read_them(conv):
    gnn, nodes = made(conv), torch.rand(COUNT, 16)
    assert gnn.process.reads == ("edge_attr",)
    edges = KeypointGraph().edges(torch.rand(1, COUNT, 2))
    near, far = (gnn.process(nodes, edges.edge_index, scale * edges.edge_attr) for scale in (0.5, 2.0))
    assert (near - far).abs().max() > 1e-3


def test_a_layer_can_be_told_to_read_no_edges():
    gnn = KeypointGNN(keypoint_space(COUNT), conv="GATv2Conv", conv_kwargs={"edge_dim": None})
    assert gnn.process.reads == ()
    assert gnn(observations_of(COUNT)).shape == (3, 128)


def test_pna_has_the_degrees_of_the_graph():
    # avg_deg's mean of log(degree + 1): all nodes hear 2.
    gnn = made("PNAConv", "knn")
    assert gnn.process.layer.aggr_module.avg_deg_lin.item() == pytest.approx(2)
    assert gnn.process.layer.aggr_module.scaler == ["identity"]
    assert len(made("PNAConv", "radius").process.layer.aggr_module.scaler) == 3
    own = KeypointGNN(keypoint_space(COUNT), conv="PNAConv", conv_kwargs={"aggregators": ["sum"], "towers": 4})
    assert own.process.layer.towers == 4


def test_graphs_of_a_batch_do_not_hear_each_other():
    torch.manual_seed(0)
    attending = {"conv": None, "heads": 2}
    gnn = KeypointGNN(keypoint_space(COUNT), conv="GPSConv", conv_kwargs=attending, aggregate="pool").eval()
    observations = observations_of(COUNT)
    alone = torch.cat([gnn({name: part[row, None] for name, part in observations.items()}) for row in range(3)])
    torch.testing.assert_close(gnn(observations), alone, atol=1e-4, rtol=1e-3)


class Mixing(nn.Module):
    """A layer that takes all nodes for one graph's."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels)

    def forward(self, x, edge_index):
        return self.linear(x) + x.mean()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"conv": "GATv3Conv"}, "'GATv3Conv'; did you mean GATv2Conv or"),
        ({"conv": 3}, "conv must be 'interaction', the name of a layer in torch_geometric.nn or a class, not 3"),
        ({"conv": "GATv2Conv", "conv_kwargs": {"headz": 2}}, "GATv2Conv has no argument 'headz'; it has in_channels"),
        ({"conv": "GATv2Conv", "conv_kwargs": {"heads": 3}}, "GATv2Conv's heads must divide the 64 units, not 3"),
        ({"conv": "GATv2Conv", "conv_kwargs": {"out_channels": 7}}, r"but of \(10, 64\) it makes \(10, 7\)"),
        ({"conv": "SplineConv"}, "SplineConv cannot be made with conv_kwargs={}: .*kernel_size"),
        ({"conv": "EdgeConv"}, "EdgeConv must map nodes of width 64 to as wide ones over edge_index, but failed: mat1"),
        ({"conv": Mixing}, "Mixing must map .* but it mixes the nodes of different graphs"),
        ({"conv": "interaction", "conv_kwargs": {"heads": 2}}, "'interaction' takes none, not {'heads': 2}"),
        ({"num_layers": 0}, "num_layers must be 1 or more, not 0"),
        ({"graph": "tree"}, "graph must be one of full, knn, radius, not 'tree'"),
        ({"graph": "knn", "k": 5}, "k must be from 1 to 4 for 5 keypoints, not 5"),
    ],
)
def test_wrong_layers_and_graphs_are_named_in_a_sentence(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        KeypointGNN(keypoint_space(COUNT), **arguments)
    assert "\n" not in str(caught.value)


def test_modules_among_the_arguments_are_copied():
    own = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
    first, second = (
        KeypointGNN(keypoint_space(COUNT), conv="GINConv", conv_kwargs={"nn": own}, num_layers=2) for _ in range(2)
    )
    modules = [gnn.process.layer.nn for gnn in (first, second)] + [first.process_further[0].layer.nn, own]
    assert len({id(module[0].weight) for module in modules}) == 4


def test_trying_a_layer_leaves_its_statistics():
    gnn = KeypointGNN(keypoint_space(COUNT), conv="GPSConv", conv_kwargs={"conv": None})
    assert gnn.process.layer.training
    assert gnn.process.layer.norm2.module.num_batches_tracked == 0


@pytest.mark.parametrize("conv", ["GATv2Conv", GATv2Conv])
@pytest.mark.parametrize(
    ("algorithm", "policy", "arguments"),
    [
        (RecurrentDQN, "PermaKeyPolicy", {"learning_starts": 20, "batch_size": 4}),
        (Rainbow, "PermaKeyPolicy", {"learning_starts": 20, "batch_size": 4}),
        (DQN, "MultiInputPolicy", {"learning_starts": 20, "batch_size": 4}),
        (QRDQN, "MultiInputPolicy", {"learning_starts": 20, "batch_size": 4}),
        (PPO, "MultiInputPolicy", {"n_steps": 20, "batch_size": 10, "n_epochs": 1}),
        (RecurrentPPO, "MultiInputLstmPolicy", {"n_steps": 20, "batch_size": 10, "n_epochs": 1}),
    ],
)
def test_agents_learn_with_it_and_load(algorithm, policy, arguments, conv, checkpoint, tmp_path):
    env = PermaKeyObservation(MovingSquare(), checkpoint)
    extractor = {"features_extractor_class": KeypointGNN}
    extractor["features_extractor_kwargs"] = {"conv": conv, "units": 8, "graph": "knn", "k": 2}
    agent = algorithm(policy, env, policy_kwargs=copy.deepcopy(extractor), seed=0, **arguments)
    before = [part.clone() for name, part in agent.policy.named_parameters() if "process.layer" in name]
    agent.learn(40)
    after = [part for name, part in agent.policy.named_parameters() if "process.layer" in name]
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    agent.save(tmp_path / "agent.zip")
    loaded = algorithm.load(tmp_path / "agent.zip")
    observation, _ = env.reset(seed=0)
    for one, other in zip(agent.policy.state_dict().values(), loaded.policy.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert loaded.predict(observation, deterministic=True)[0] == agent.predict(observation, deterministic=True)[0]
