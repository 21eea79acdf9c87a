import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor
from torch import nn

from sb3_permakey.extractors import KeypointCNN, KeypointGNN
from sb3_permakey.keypoints import PermaKey, PermaKeyConfig
from sb3_permakey.recurrent_dqn.policies import CnnLstmPolicy, MlpLstmPolicy, MultiInputLstmPolicy, PermaKeyPolicy

ACTIONS = spaces.Discrete(3)
VECTOR = spaces.Box(-1, 1, (4,))
IMAGE = spaces.Box(0, 255, (3, 36, 36), np.uint8)
MIXED = spaces.Dict({"image": IMAGE, "vector": VECTOR, "number": spaces.Discrete(5)})
KEYPOINTS = {"keypoints": spaces.Box(-1, 1, (3, 2)), "features": spaces.Box(0, np.inf, (3, 64))}


def make_policy(policy_class=MlpLstmPolicy, observation_space=VECTOR, **kwargs):
    torch.manual_seed(0)
    return policy_class(observation_space, ACTIONS, lambda _: 1e-3, **{"lstm_hidden_size": 16, **kwargs})


def draw(space, *leading):
    """Random observations with leading axes, as tensors."""
    if isinstance(space, spaces.Dict):
        return {key: draw(subspace, *leading) for key, subspace in space.spaces.items()}
    flat = np.stack([space.sample() for _ in range(int(np.prod(leading)))])
    return torch.as_tensor(flat.reshape(*leading, *flat.shape[1:]))


def at(obs, step):
    return {key: value[step] for key, value in obs.items()} if isinstance(obs, dict) else obs[step]


@pytest.mark.parametrize(
    ("policy_class", "space"), [(MlpLstmPolicy, VECTOR), (CnnLstmPolicy, IMAGE), (MultiInputLstmPolicy, MIXED)]
)
@pytest.mark.parametrize("n_lstm_layers", [1, 2])
def test_a_window_at_once_equals_its_steps_one_by_one(policy_class, space, n_lstm_layers):
    net = make_policy(policy_class, space, n_lstm_layers=n_lstm_layers).q_net
    obs = draw(space, 5, 2)
    at_once = net.window_q_values(obs)
    assert at_once.shape == (5, 2, 3)
    states = (torch.full((n_lstm_layers, 2, 16), 7.0),) * 2
    for step in range(5):
        q_values, states = net(at(obs, step), states, torch.full((2,), step == 0))
        torch.testing.assert_close(q_values, at_once[step], atol=1e-5, rtol=1e-4)


def test_later_observations_and_other_windows_change_nothing():
    net = make_policy().q_net
    obs = draw(VECTOR, 6, 3).requires_grad_()
    net.window_q_values(obs)[2, 1].sum().backward()
    depends = obs.grad.abs().sum(dim=-1) > 0
    expected = torch.zeros(6, 3, dtype=torch.bool)
    expected[:3, 1] = True
    assert torch.equal(depends, expected)


def test_episode_starts_reset_only_their_environments():
    net = make_policy().q_net
    obs = draw(VECTOR, 2)
    states = (torch.randn(1, 2, 16), torch.randn(1, 2, 16))
    zeros = (torch.zeros(1, 2, 16), torch.zeros(1, 2, 16))
    nowhere = torch.zeros(2, dtype=torch.bool)
    q_values, (hidden, cell) = net(obs, states, torch.tensor([True, False]))
    for row, from_states in enumerate((zeros, states)):
        expected, (expected_hidden, expected_cell) = net(obs, from_states, nowhere)
        torch.testing.assert_close(q_values[row], expected[row])
        torch.testing.assert_close(hidden[:, row], expected_hidden[:, row])
        torch.testing.assert_close(cell[:, row], expected_cell[:, row])


def test_the_networks_are_equal_at_first_and_share_nothing():
    policy = make_policy(CnnLstmPolicy, IMAGE)
    for online, target in zip(policy.q_net.parameters(), policy.q_net_target.parameters(), strict=True):
        assert torch.equal(online, target)
        assert online.data_ptr() != target.data_ptr()
    optimized = {id(p) for group in policy.optimizer.param_groups for p in group["params"]}
    assert optimized == {id(p) for p in policy.q_net.parameters()}
    policy.set_training_mode(True)
    assert policy.q_net.training
    assert not policy.q_net_target.training


def test_the_head_is_linear_unless_told_otherwise():
    assert [type(layer) for layer in make_policy().q_net.head] == [nn.Linear]
    layers = make_policy(net_arch=[8], activation_fn=nn.Tanh).q_net.head
    assert [type(layer) for layer in layers] == [nn.Linear, nn.Tanh, nn.Linear]


@pytest.mark.parametrize(
    ("policy_class", "space"), [(MlpLstmPolicy, VECTOR), (CnnLstmPolicy, IMAGE), (MultiInputLstmPolicy, MIXED)]
)
def test_save_and_load(policy_class, space, tmp_path):
    policy = make_policy(policy_class, space, net_arch=[8], n_lstm_layers=2)
    policy.save(tmp_path / "policy.pt")
    loaded = policy_class.load(tmp_path / "policy.pt", device="cpu")
    obs = draw(space, 4, 2)
    assert torch.equal(loaded.q_net.window_q_values(obs), policy.q_net.window_q_values(obs))


def test_predict_of_one_observation_and_of_several():
    policy = make_policy(MultiInputLstmPolicy, MIXED)
    one = MIXED.sample()
    action, state = policy.predict(one)
    assert action.shape == ()
    assert [part.shape for part in state] == [(1, 1, 16)] * 2
    several = {key: np.stack([value] * 2) for key, value in one.items()}
    actions, states = policy.predict(several)
    assert actions.tolist() == [action.item()] * 2
    np.testing.assert_allclose(states[0], np.repeat(state[0], 2, axis=1), atol=1e-6)


def test_predict_refuses_what_it_cannot_use():
    policy = make_policy()
    with pytest.raises(ValueError, match=r"\(observation, info\) pair"):
        policy.predict((VECTOR.sample(), {}))
    with pytest.raises(ValueError, match=r"must be two arrays of shape \(1, 2, 16\).*got \[\(1, 3, 16\)"):
        policy.predict(draw(VECTOR, 2).numpy(), state=(np.zeros((1, 3, 16)),) * 2)


def test_extractors_for_other_observations_are_refused():
    with pytest.raises(ValueError, match="Dict observations need MultiInputLstmPolicy"):
        make_policy(MlpLstmPolicy, MIXED)
    with pytest.raises(ValueError, match="needs Dict observations"):
        make_policy(MultiInputLstmPolicy, VECTOR)


def test_permakey_policy_uses_the_gnn_by_default():
    space = spaces.Dict(KEYPOINTS)
    policy = make_policy(PermaKeyPolicy, space)
    assert isinstance(policy.q_net.features_extractor, KeypointGNN)
    assert policy.q_net.window_q_values(draw(space, 4, 2)).shape == (4, 2, 3)


def test_permakey_policy_with_the_cnn():
    space = spaces.Dict({**KEYPOINTS, "image": spaces.Box(0, 255, (3, 84, 84), np.uint8)})
    checkpoint = PermaKey(PermaKeyConfig(num_keypoints=3))
    policy = make_policy(
        PermaKeyPolicy,
        space,
        keypoint_encoder="cnn",
        features_extractor_kwargs={"checkpoint": checkpoint, "filters": 8},
    )
    assert isinstance(policy.q_net.features_extractor, KeypointCNN)


def test_permakey_policy_save_and_load(tmp_path):
    space = spaces.Dict(KEYPOINTS)
    policy = make_policy(PermaKeyPolicy, space)
    policy.set_training_mode(False)
    policy.save(tmp_path / "policy.pt")
    loaded = PermaKeyPolicy.load(tmp_path / "policy.pt", device="cpu")
    loaded.set_training_mode(False)
    obs = draw(space, 4, 2)
    assert torch.equal(loaded.q_net.window_q_values(obs), policy.q_net.window_q_values(obs))


def test_an_explicit_extractor_wins_over_the_keypoint_encoder():
    policy = make_policy(PermaKeyPolicy, MIXED, features_extractor_class=CombinedExtractor)
    assert isinstance(policy.q_net.features_extractor, CombinedExtractor)
    policy = make_policy(PermaKeyPolicy, VECTOR, features_extractor_class=FlattenExtractor)
    assert isinstance(policy.q_net.features_extractor, FlattenExtractor)


def test_permakey_policy_says_what_is_missing():
    for space in (VECTOR, MIXED, spaces.Dict({"keypoints": KEYPOINTS["keypoints"]})):
        with pytest.raises(ValueError, match="wrap the environment with PermaKeyObservation first"):
            make_policy(PermaKeyPolicy, space)
    with pytest.raises(ValueError, match="keep_image=True"):
        make_policy(PermaKeyPolicy, spaces.Dict(KEYPOINTS), keypoint_encoder="cnn")
    with pytest.raises(ValueError, match=r"keypoint_encoder must be one of \['cnn', 'gnn'\], got 'mlp'"):
        make_policy(PermaKeyPolicy, spaces.Dict(KEYPOINTS), keypoint_encoder="mlp")
