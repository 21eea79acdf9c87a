import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor
from torch import nn

from sb3_permakey.common.windows import BurnIn
from sb3_permakey.encoders import KeypointCNN, KeypointGNN
from sb3_permakey.envs.previous_action_reward import with_previous_step
from sb3_permakey.keypoints import PermaKey, PermaKeyConfig
from sb3_permakey.recurrent_dqn.policies import CnnLstmPolicy, MlpLstmPolicy, MultiInputLstmPolicy, PermaKeyPolicy
from sb3_permakey.recurrent_qrdqn import policies as quantile_policies

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


NETWORKS = [
    (MlpLstmPolicy, VECTOR, {}),
    (MlpLstmPolicy, VECTOR, {"rnn_type": "gru", "n_lstm_layers": 2}),
    (MlpLstmPolicy, VECTOR, {"rnn_type": "mingru", "n_lstm_layers": 2}),
    (MlpLstmPolicy, VECTOR, {"dueling": True, "net_arch": [8]}),
    (MlpLstmPolicy, spaces.Discrete(5), {}),
    (CnnLstmPolicy, IMAGE, {"n_lstm_layers": 2}),
    (MultiInputLstmPolicy, MIXED, {}),
    (MultiInputLstmPolicy, with_previous_step(MIXED, ACTIONS), {}),
    (PermaKeyPolicy, with_previous_step(spaces.Dict(KEYPOINTS), ACTIONS), {}),
    (quantile_policies.MlpLstmPolicy, VECTOR, {"n_quantiles": 7}),
    (quantile_policies.CnnLstmPolicy, IMAGE, {"dueling": True}),
    (quantile_policies.PermaKeyPolicy, spaces.Dict(KEYPOINTS), {"rnn_type": "gru"}),
]


@pytest.mark.parametrize(("policy_class", "space", "kwargs"), NETWORKS)
def test_a_window_at_once_equals_its_steps_one_by_one(policy_class, space, kwargs):
    net = make_policy(policy_class, space, **kwargs).q_net
    net.set_training_mode(False)
    obs = draw(space, 5, 2)
    at_once = net.window_values(obs)
    assert at_once.shape[:3] == (5, 2, 3)
    states = tuple(torch.full_like(part, 7.0) for part in net.initial_states(2))
    for step in range(5):
        values, states = net(at(obs, step), states, torch.full((2,), step == 0))
        torch.testing.assert_close(values, at_once[step], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("policy_class", "space", "kwargs"), NETWORKS)
def test_burn_in_equals_its_steps_one_by_one(policy_class, space, kwargs):
    """Windows of 0, 1, 4 and 3 steps of burn-in; what pads the shorter ones must not matter."""
    net = make_policy(policy_class, space, **kwargs).q_net
    net.set_training_mode(False)
    obs, lengths = draw(space, 4, 4), torch.tensor([0, 1, 4, 3])
    stored = torch.randn(4, *net.rnn.state_shape)
    for given in (stored, None):
        warm = net.warmed_up_states(BurnIn(obs, lengths), given)
        for window, length in enumerate(lengths):
            before = torch.zeros(net.rnn.state_shape) if given is None else given[window]
            states = tuple(part.unsqueeze(1) for part in before)
            for step in range(length):
                one = (
                    {key: value[:, window : window + 1] for key, value in obs.items()}
                    if isinstance(obs, dict)
                    else (obs[:, window : window + 1])
                )
                _, states = net(at(one, step), states, torch.tensor([False]))
            for got, want in zip(warm, states, strict=True):
                torch.testing.assert_close(got[:, window : window + 1], want, atol=1e-5, rtol=1e-4)


def test_states_after_the_learned_steps_have_the_same_values_and_no_gradient_through_features():
    net = make_policy().q_net
    obs = draw(VECTOR, 5, 2).requires_grad_()
    values = net.window_values(obs, learned_steps=3)
    torch.testing.assert_close(values, net.window_values(obs))
    values.sum().backward()
    depends = obs.grad.abs().sum(dim=(1, 2)) > 0
    assert depends.tolist() == [True, True, True, False, False]


def test_burn_in_leaves_no_gradient():
    net = make_policy().q_net
    before, obs = draw(VECTOR, 4, 2).requires_grad_(), draw(VECTOR, 3, 2).requires_grad_()
    states = net.warmed_up_states(BurnIn(before, torch.tensor([4, 2])), None)
    net.window_values(obs, states).sum().backward()
    assert before.grad is None
    assert obs.grad.abs().sum() > 0


def test_no_burn_in_and_no_stored_state_is_the_zero_state():
    net = make_policy().q_net
    assert net.warmed_up_states(None, None) is None
    nothing_before = BurnIn(draw(VECTOR, 2, 3), torch.zeros(3, dtype=torch.int64))
    assert net.warmed_up_states(nothing_before, None) is None
    hidden, cell = net.warmed_up_states(None, torch.arange(2 * 2 * 16.0).reshape(2, 2, 1, 16))
    assert hidden[0, 1].tolist() == list(range(32, 48))
    assert cell[0, 0].tolist() == list(range(16, 32))


@pytest.mark.parametrize("with_target", [True, False])
def test_the_network_that_is_asked_for_chooses_the_actions(with_target, tmp_path):
    policy = make_policy(act_with_target=with_target)
    target = torch.Generator().manual_seed(1)
    for parameter in policy.q_net_target.parameters():
        parameter.data.uniform_(-1, 1, generator=target)
    policy.save(tmp_path / "policy.pt")
    observations = draw(VECTOR, 64).numpy()
    chosen = {}
    for name, one in (("online", policy.q_net), ("target", policy.q_net_target)):
        values, _ = one(torch.as_tensor(observations), one.initial_states(64), torch.zeros(64, dtype=torch.bool))
        chosen[name] = values.mean(dim=-1).argmax(dim=1).numpy()
    assert (chosen["online"] != chosen["target"]).any()
    for acting in (policy, type(policy).load(tmp_path / "policy.pt")):
        actions, _ = acting.predict(observations)
        assert (actions == chosen["target" if with_target else "online"]).all()


def test_dueling_adds_the_state_value_to_centred_advantages():
    head = make_policy(dueling=True).q_net.head
    features = torch.randn(5, 16)
    advantages, value = head.advantages(features), head.state_value(features)
    expected = value + advantages - advantages.mean(dim=1, keepdim=True)
    torch.testing.assert_close(head(features).squeeze(-1), expected)


def test_the_previous_action_and_reward_reach_the_recurrent_layer_alone():
    space = with_previous_step(VECTOR, ACTIONS)
    net = make_policy(MultiInputLstmPolicy, space).q_net
    assert net.features_extractor.features_dim == 4
    obs = draw(space, 2)
    inputs = net.recurrent_inputs(obs)
    torch.testing.assert_close(inputs[:, 4:7], obs["previous_action"])
    torch.testing.assert_close(inputs[:, 7:], obs["previous_reward"])


def test_later_observations_and_other_windows_change_nothing():
    net = make_policy().q_net
    obs = draw(VECTOR, 6, 3).requires_grad_()
    net.window_values(obs)[2, 1].sum().backward()
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
    head = make_policy().q_net.head
    assert [type(layer) for layer in head.advantages] == [nn.Linear]
    assert head.state_value is None
    layers = make_policy(net_arch=[8], activation_fn=nn.Tanh).q_net.head.advantages
    assert [type(layer) for layer in layers] == [nn.Linear, nn.Tanh, nn.Linear]


@pytest.mark.parametrize(("policy_class", "space", "kwargs"), NETWORKS)
def test_save_and_load(policy_class, space, kwargs, tmp_path):
    policy = make_policy(policy_class, space, **kwargs)
    policy.save(tmp_path / "policy.pt")
    loaded = policy_class.load(tmp_path / "policy.pt", device="cpu")
    obs = draw(space, 4, 2)
    assert torch.equal(loaded.q_net.window_values(obs), policy.q_net.window_values(obs))


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


def test_a_gru_has_one_state():
    policy = make_policy(rnn_type="gru", n_lstm_layers=2)
    _, state = policy.predict(VECTOR.sample())
    assert [part.shape for part in state] == [(2, 1, 16)]
    with pytest.raises(ValueError, match="rnn_type must be one of .*, got 'rnn'"):
        make_policy(rnn_type="rnn")


def test_the_greedy_action_has_the_highest_mean_of_its_quantiles():
    policy = make_policy(quantile_policies.MlpLstmPolicy, n_quantiles=2)
    with torch.no_grad():
        for parameter in policy.q_net.head.parameters():
            parameter.zero_()
        policy.q_net.head.advantages[0].bias.copy_(torch.tensor([9.0, 0.0, 5.0, 5.0, 0.0, 8.0]))
    assert policy.predict(VECTOR.sample())[0] == 1


def test_predict_refuses_what_it_cannot_use():
    policy = make_policy()
    with pytest.raises(ValueError, match=r"\(observation, info\) pair"):
        policy.predict((VECTOR.sample(), {}))
    with pytest.raises(ValueError, match=r"arrays of shapes \[\(1, 2, 16\), \(1, 2, 16\)\].*got \[\(1, 3, 16\)"):
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
    assert policy.q_net.window_values(draw(space, 4, 2)).shape == (4, 2, 3, 1)


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
    assert torch.equal(loaded.q_net.window_values(obs), policy.q_net.window_values(obs))


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
    with pytest.raises(
        ValueError, match=r"keypoint_encoder must be one of \['attention', 'cnn', 'gnn', 'pairs'\], got 'mlp'"
    ):
        make_policy(PermaKeyPolicy, spaces.Dict(KEYPOINTS), keypoint_encoder="mlp")
