import pytest
import torch
from conftest import MovingSquare
from hypothesis import given, settings
from hypothesis import strategies as st
from keypoint_spaces import keypoint_space, observations_of
from sb3_contrib import RecurrentPPO
from stable_baselines3 import DQN
from torch import nn

from sb3_permakey import (
    KeypointAttention,
    PermaKeyObservation,
    Rainbow,
    RecurrentDQN,
    RecurrentQRDQN,
)
from sb3_permakey.encoders.parts import with_waves

COUNT = 6


def test_answers_are_means_weighted_by_attention():
    torch.manual_seed(0)
    encoder = KeypointAttention(keypoint_space(COUNT, confidence=True), queries=2, units=8)
    observations = observations_of(COUNT, confidence=True)
    found, weights = encoder(observations), encoder.attention(observations)
    assert found.shape == (3, encoder.features_dim) == (3, 16)
    assert weights.shape == (3, 2, COUNT)
    for b in range(3):
        nodes = []
        for k in range(COUNT):
            place = with_waves(observations["keypoints"][b, k], 4)
            feature = encoder.normalise_features(observations["features"][b, k])
            nodes.append(encoder.encode_nodes(torch.cat([feature, place, observations["confidence"][b, k : k + 1]])))
        answers = []
        for query, of_query in zip(encoder.queries.weight, weights[b], strict=True):
            exponentials = torch.stack([(query * node).sum().exp() for node in nodes])
            torch.testing.assert_close(of_query, exponentials / exponentials.sum())
            answers.append(sum(weight * node for weight, node in zip(of_query, nodes, strict=True)))
        torch.testing.assert_close(found[b], encoder.normalise_answers(torch.cat(answers)))


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(COUNT)), seed=st.integers(0, 2**16))
def test_attention_follows_the_keypoints_and_features_do_not(order, seed):
    torch.manual_seed(seed)
    encoder, observations = KeypointAttention(keypoint_space(COUNT)), observations_of(COUNT)
    permuted = {name: values[:, order] for name, values in observations.items()}
    with torch.no_grad():
        torch.testing.assert_close(encoder(permuted), encoder(observations), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(encoder.attention(permuted), encoder.attention(observations)[..., order])


def test_it_learns_which_keypoint_matters(one_thread):
    """The place of the one keypoint whose first feature is 1, among 25."""
    torch.manual_seed(0)
    encoder = KeypointAttention(keypoint_space(25), queries=2, units=16)
    network = nn.Sequential(encoder, nn.Linear(encoder.features_dim, 2))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)

    def batch():
        observations = {"keypoints": torch.rand(64, 25, 2) * 2 - 1, "features": torch.rand(64, 25, 6) / 10}
        marked = torch.randint(25, (64,))
        observations["features"][torch.arange(64), marked, 0] = 1
        return observations, marked

    for _ in range(500):
        observations, marked = batch()
        loss = (network(observations) - observations["keypoints"][torch.arange(64), marked]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    observations, marked = batch()
    on_it = encoder.attention(observations)[torch.arange(64), :, marked]
    assert loss < 0.05
    assert on_it.mean() > 0.5


@pytest.mark.parametrize(
    ("algorithm", "policy", "arguments"),
    [
        (RecurrentDQN, "PermaKeyPolicy", {"learning_starts": 20, "batch_size": 4}),
        (RecurrentQRDQN, "PermaKeyPolicy", {"learning_starts": 20, "batch_size": 4}),
        (Rainbow, "PermaKeyPolicy", {"learning_starts": 20, "batch_size": 4}),
        (DQN, "MultiInputPolicy", {"learning_starts": 20, "batch_size": 4}),
        (RecurrentPPO, "MultiInputLstmPolicy", {"n_steps": 20, "batch_size": 10, "n_epochs": 1}),
    ],
)
def test_agents_learn_with_it_and_load(algorithm, policy, arguments, checkpoint, tmp_path):
    env = PermaKeyObservation(MovingSquare(), checkpoint, readout="peaks", num_keypoints=25, history=1)
    kwargs = {"features_extractor_class": KeypointAttention}
    if policy == "PermaKeyPolicy":
        kwargs = {"keypoint_encoder": "attention"}
    agent = algorithm(policy, env, policy_kwargs=kwargs, seed=0, **arguments)
    assert any(isinstance(module, KeypointAttention) for module in agent.policy.modules())
    before = [part.clone() for name, part in agent.policy.named_parameters() if "queries" in name]
    agent.learn(40)
    after = [part for name, part in agent.policy.named_parameters() if "queries" in name]
    assert not torch.equal(before[0], after[0])
    agent.save(tmp_path / "agent.zip")
    observation, _ = env.reset(seed=0)
    loaded = algorithm.load(tmp_path / "agent.zip")
    assert loaded.predict(observation, deterministic=True)[0] == agent.predict(observation, deterministic=True)[0]


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="queries must be 1 or more, not 0"):
        KeypointAttention(keypoint_space(COUNT), queries=0)
    with pytest.raises(ValueError, match="position_frequencies must be 0 or more, not -1"):
        KeypointAttention(keypoint_space(COUNT), position_frequencies=-1)
