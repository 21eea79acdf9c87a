import numpy as np
import pytest
import torch
from counting_env import KEYPOINTS, make_vec_env
from torch import nn

from sb3_permakey import (
    KeypointAttention,
    KeypointCNN,
    KeypointGNN,
    KeypointPairs,
    PermaKeyObservation,
    Rainbow,
    RecurrentDQN,
    make_atari_env,
)
from sb3_permakey.common.feature_statistics import dead_units, effective_rank, relative_spread
from sb3_permakey.encoders.initialisation import initialise_head, initialise_layers, initialise_recurrent

STATES = 48

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=["MsPacman", "Seaquest"])
def played(request):
    """An environment of keypoints, and every tenth observation of random play."""
    env = PermaKeyObservation(make_atari_env(request.param, seed=0), request.param.lower(), keep_image=True)
    observation, _ = env.reset()
    found = [observation]
    for step in range(1, 10 * STATES):
        observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            observation, _ = env.reset()
        if step % 10 == 0:
            found.append(observation)
    batch = {key: torch.as_tensor(np.stack([one[key] for one in found])).float() for key in found[0]}
    return env, {**batch, "image": batch["image"] / 255}


@pytest.mark.parametrize("make", [KeypointPairs, KeypointAttention])
def test_a_fresh_encoder_tells_states_apart(played, make):
    env, batch = played
    torch.manual_seed(0)
    with torch.no_grad():
        features = make(env.observation_space)(batch)
    assert relative_spread(features) > 0.25
    assert effective_rank(features) > 15
    assert dead_units(features) < 0.2


@pytest.mark.parametrize("training", [True, False])
def test_a_fresh_cnn_tells_states_apart(played, training):
    env, batch = played
    torch.manual_seed(0)
    with torch.no_grad():
        features = KeypointCNN(env.observation_space, filters=8).train(training)(batch)
    assert relative_spread(features) > 0.25


@pytest.mark.parametrize("rnn_type", ["lstm", "gru", "mingru"])
def test_a_fresh_recurrent_network_tells_states_apart(played, rnn_type):
    env, batch = played
    policy = {"keypoint_encoder": "pairs", "rnn_type": rnn_type}
    model = RecurrentDQN("PermaKeyPolicy", env, seed=0, buffer_size=100, policy_kwargs=policy)
    starts = torch.ones(STATES, dtype=torch.bool)
    with torch.no_grad():
        values, states = model.q_net(batch, model.q_net.initial_states(STATES), starts)
    assert relative_spread(states[0][0]) > 0.25
    assert relative_spread(values[..., 0]) > 0.25


def test_a_graph_network_keeps_torchs_own_weights():
    """Uniform up to 1 / sqrt(inputs), biases too, whatever its policy begins with."""
    model = RecurrentDQN("PermaKeyPolicy", make_vec_env(1, KEYPOINTS), device="cpu")
    assert isinstance(model.q_net.features_extractor, KeypointGNN)
    for layer in (one for one in model.q_net.features_extractor.modules() if isinstance(one, nn.Linear)):
        assert (layer.weight.abs() <= layer.in_features**-0.5).all()
    assert all(not layer.bias.any() for layer in model.q_net.head.modules() if isinstance(layer, nn.Linear))


def test_relu_keeps_size_and_spread_through_many_layers():
    torch.manual_seed(0)
    layers = nn.Sequential(*[layer for _ in range(12) for layer in (nn.Linear(64, 64), nn.ReLU())])
    inputs = torch.rand(200, 64)
    with torch.no_grad():
        before = relative_spread(layers(inputs))
        initialise_layers(layers)
        after = layers(inputs)
    assert before < 0.05
    assert relative_spread(after) > 0.5
    assert 0.01 < after.square().mean() / inputs.var() < 10


def test_rows_are_orthogonal_and_centred():
    layer = nn.Linear(6, 3)
    initialise_layers(layer, gain=2.0, centred=False)
    assert torch.allclose(layer.weight @ layer.weight.t(), 4 * torch.eye(3), atol=1e-5)
    assert not layer.bias.any()
    convolution = nn.Conv2d(2, 5, 3)
    initialise_layers(convolution)
    assert convolution.weight.mean(dim=(1, 2, 3)).abs().max() < 1e-6


def test_heads_begin_small_and_forget_gates_open():
    head = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    initialise_head(head)
    assert torch.allclose(torch.linalg.svdvals(head[2].weight), torch.full((4,), 0.1), atol=1e-5)
    rnn = nn.LSTM(3, 2)
    initialise_recurrent(rnn)
    assert rnn.bias_ih_l0.tolist() == [0, 0, 1, 1, 0, 0, 0, 0]
    assert not rnn.bias_hh_l0.any()
    gate = rnn.weight_hh_l0[:2]
    assert torch.allclose(gate @ gate.t(), torch.eye(2), atol=1e-5)


def test_effective_rank_of_known_spectra():
    assert effective_rank(torch.eye(5)) == pytest.approx(5, abs=1e-4)
    assert effective_rank(torch.ones(6, 3)) == pytest.approx(1, abs=1e-3)
    # Shares 3/4 and 1/4: exp(-(3/4 log 3/4 + 1/4 log 1/4)).
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(1.7548, abs=1e-3)


def test_dead_units_and_spread():
    features = torch.tensor([[0.0, 1.0, 2.0, 1.0], [0.0, 3.0, 2.0, 0.0]])
    assert dead_units(features) == 0.5
    assert relative_spread(torch.tensor([[1.0], [3.0]])) == pytest.approx(2**0.5 / 2)


@pytest.mark.parametrize("agent", [Rainbow, RecurrentDQN])
def test_an_agent_may_begin_with_torchs_own_weights_and_resets_to_them(agent):
    """Of a linear layer these are uniform up to 1 / sqrt(inputs), biases too."""
    model, ours = (
        agent(
            "PermaKeyPolicy",
            make_vec_env(1, KEYPOINTS),
            device="cpu",
            policy_kwargs={"ortho_init": orthogonal, "keypoint_encoder": "pairs"},
        )
        for orthogonal in (False, True)
    )
    if agent is Rainbow:
        model.reset_networks()
    for net, own in ((model.q_net, False), (ours.q_net, True)):
        layers = [layer for layer in net.modules() if isinstance(layer, nn.Linear)]
        within = [bool((layer.weight.abs() <= layer.in_features**-0.5).all()) for layer in layers]
        no_biases = [layer.bias is None or not layer.bias.any() for layer in layers]
        assert all(within) != own
        assert all(no_biases) == own
    saved = model.policy._get_constructor_parameters()
    assert saved["ortho_init"] is False
