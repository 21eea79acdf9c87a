import math

import numpy as np
import pytest
import torch
from conftest import MovingSquare
from gymnasium import spaces
from keypoint_spaces import keypoint_space, observations_of
from sb3_contrib import QRDQN, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

from sb3_permakey import (
    KeypointAttention,
    KeypointCNN,
    KeypointGNN,
    KeypointPairs,
    PermaKeyObservation,
    RecurrentDQN,
    VecPermaKeyObservation,
)
from sb3_permakey.encoders.parts import with_waves

SMALL = {"learning_starts": 50, "buffer_size": 1000}


@pytest.mark.parametrize("aggregate", ["concat", "pool"])
@pytest.mark.parametrize("confidence", [False, True])
def test_gnn_equals_messages_written_out(aggregate, confidence):
    torch.manual_seed(0)
    count = 4
    gnn = KeypointGNN(keypoint_space(count, confidence=confidence), aggregate=aggregate)
    observations = observations_of(count, confidence=confidence)
    with torch.no_grad():
        found = gnn(observations)
        edge = gnn.encode_edges(torch.zeros(64))
        for batch in range(3):
            nodes = []
            for k in range(count):
                parts = [observations["features"][batch, k], gnn.embed_position(observations["keypoints"][batch, k])]
                if confidence:
                    parts.append(observations["confidence"][batch, k : k + 1])
                nodes.append(gnn.encode_nodes(torch.cat(parts)))
            decoded = []
            for i in range(count):
                messages = [
                    gnn.process.update_edges(torch.cat([nodes[i], nodes[j], edge])) for j in range(count) if j != i
                ]
                updated = gnn.process.update_nodes(torch.cat([nodes[i], torch.stack(messages).sum(0)]))
                decoded.append(gnn.decode_nodes(updated))
            together = torch.stack(decoded)
            pooled = torch.cat([together.mean(dim=0), together.max(dim=0).values])
            expected = gnn.output(pooled if aggregate == "pool" else torch.cat(decoded))
            assert torch.allclose(found[batch], expected, atol=1e-5)


@pytest.mark.parametrize("confidence", [False, True])
def test_pooled_nodes_have_no_order(confidence):
    torch.manual_seed(0)
    count, order = 5, [3, 0, 4, 2, 1]
    space, observations = keypoint_space(count, confidence=confidence), observations_of(count, confidence=confidence)
    reordered = {name: values[:, order] for name, values in observations.items()}
    differences = {}
    for aggregate in ("concat", "pool"):
        gnn = KeypointGNN(space, aggregate=aggregate)
        with torch.no_grad():
            differences[aggregate] = (gnn(observations) - gnn(reordered)).abs().max()
    assert differences["pool"] < 1e-6
    assert differences["concat"] > 1e-4


def test_gnn_without_confidence_keeps_its_parameters():
    gnn = KeypointGNN(keypoint_space(7, channels=64))
    assert gnn.encode_nodes[0].weight.shape == (64, 64 + 64)
    assert gnn.output[0].weight.shape == (128, 7 * 64)


def test_waves_of_a_position_by_hand():
    # x = 1/2 and y = -1/4, times pi and 2 pi: angles of 90, 180, -45 and -90 degrees.
    half = math.sqrt(0.5)
    sines, cosines = [1, 0, -half, -1], [0, -1, half, 0]
    found = with_waves(torch.tensor([[[0.5, -0.25]]]), 2)
    assert torch.allclose(found, torch.tensor([[[0.5, -0.25, *sines, *cosines]]]), atol=1e-6)
    assert torch.equal(with_waves(found, 0), found)


@pytest.mark.parametrize("aggregate", ["concat", "pool"])
def test_normalised_gnn_forgets_mean_and_scale_of_the_features(aggregate):
    torch.manual_seed(0)
    observations = observations_of(4, channels=6)
    scaled = {**observations, "features": 5 + 3 * observations["features"]}
    for layer_norm in (True, False):
        gnn = KeypointGNN(keypoint_space(4), aggregate=aggregate, position_frequencies=3, layer_norm=layer_norm)
        with torch.no_grad():
            difference = (gnn(observations) - gnn(scaled)).abs().max()
        assert (difference < 1e-3) == layer_norm


def test_nodes_are_normalised_before_the_output():
    gnn = KeypointGNN(keypoint_space(4), aggregate="pool", layer_norm=True)
    seen = []
    gnn.output.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    gnn(observations_of(4))
    assert torch.allclose(seen[0].mean(dim=1), torch.zeros(3), atol=1e-6)
    assert torch.allclose(seen[0].var(dim=1, unbiased=False), torch.ones(3), atol=0.02)


def test_unknown_aggregates_are_refused():
    with pytest.raises(ValueError, match="aggregate must be 'concat' or 'pool', not 'sum'"):
        KeypointGNN(keypoint_space(3), aggregate="sum")
    with pytest.raises(ValueError, match="position_frequencies must be 0 or more, not -1"):
        KeypointGNN(keypoint_space(3), position_frequencies=-1)


@pytest.mark.parametrize("count", [1, 7, 25])
def test_gnn_takes_any_number_of_keypoints_and_learns(count):
    gnn = KeypointGNN(keypoint_space(count), features_dim=32)
    features = gnn(observations_of(count))
    assert features.shape == (3, 32)
    features.sum().backward()
    assert gnn.embed_position[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("encoder", [KeypointGNN, KeypointAttention, KeypointCNN])
def test_spaces_without_keypoints_are_refused_in_a_sentence(encoder):
    with pytest.raises(ValueError, match="wrap the environment with PermaKeyObservation first"):
        encoder(spaces.Box(0, 255, (84, 84, 3), np.uint8))


@pytest.mark.parametrize(
    ("algorithm", "policy", "settings"),
    [
        (DQN, "MultiInputPolicy", SMALL),
        (QRDQN, "MultiInputPolicy", SMALL),
        (PPO, "MultiInputPolicy", {"n_steps": 100, "batch_size": 50, "n_epochs": 2}),
        (A2C, "MultiInputPolicy", {}),
        (RecurrentPPO, "MultiInputLstmPolicy", {"n_steps": 100, "batch_size": 50, "n_epochs": 2}),
        (RecurrentDQN, "MultiInputLstmPolicy", SMALL),
    ],
)
def test_gnn_learns_with_every_agent_for_500_steps(checkpoint, algorithm, policy, settings):
    env = PermaKeyObservation(MovingSquare(), checkpoint)
    model = algorithm(policy, env, policy_kwargs={"features_extractor_class": KeypointGNN}, seed=0, **settings)
    extractor = model.policy.q_net.features_extractor if hasattr(model.policy, "q_net") else None
    extractor = extractor or getattr(model.policy, "quantile_net", model.policy).features_extractor
    before = {name: value.clone() for name, value in extractor.state_dict().items()}
    model.learn(500)
    assert model.num_timesteps >= 500
    assert not all(torch.equal(before[name], value) for name, value in extractor.state_dict().items())


@pytest.mark.parametrize("aggregate", ["concat", "pool"])
def test_recurrent_dqn_learns_from_peaks(checkpoint, aggregate):
    env = PermaKeyObservation(MovingSquare(), checkpoint, readout="peaks", num_keypoints=6)
    policy_kwargs = {"features_extractor_kwargs": {"aggregate": aggregate}}
    model = RecurrentDQN("PermaKeyPolicy", env, policy_kwargs=policy_kwargs, seed=0, **SMALL)
    before = {name: value.clone() for name, value in model.policy.q_net.state_dict().items()}
    model.learn(200)
    after = model.policy.q_net.state_dict()
    encoder = "features_extractor.encode_nodes.0.weight"
    assert after[encoder].shape == (64, 64 + 64 + 1)
    # The last column is the confidence's.
    assert not torch.equal(before[encoder][:, -1], after[encoder][:, -1])


@pytest.mark.parametrize("encoder", [KeypointGNN, KeypointPairs, KeypointAttention, KeypointCNN])
def test_stacked_keypoints_are_refused_in_a_sentence(encoder, checkpoint):
    env = VecFrameStack(
        VecPermaKeyObservation(DummyVecEnv([MovingSquare]), checkpoint, keep_image=True), 4, channels_order="last"
    )
    with pytest.raises(ValueError, match=r"one frame's keypoints \(K, 2\).*leave VecFrameStack out"):
        encoder(env.observation_space)


def test_the_gnn_reads_displacements_where_there_are_any():
    torch.manual_seed(0)
    space = spaces.Dict({**keypoint_space(3).spaces, "motion": spaces.Box(-0.3, 0.3, (3, 4), np.float32)})
    gnn, observations = KeypointGNN(space), observations_of(3)
    still, moved = (gnn({**observations, "motion": torch.full((3, 3, 4), size)}) for size in (0.0, 0.1))
    assert (still - moved).abs().max() > 1e-5  # fresh weights shrink what they see, rounding is a thousandth of that
