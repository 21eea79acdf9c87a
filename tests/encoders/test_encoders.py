import copy
import math

import numpy as np
import pytest
import torch
from conftest import NUM_KEYPOINTS, MovingSquare
from gymnasium import spaces
from sb3_contrib import QRDQN, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack
from torch.nn import functional as F

from sb3_permakey import (
    KeypointAttention,
    KeypointCNN,
    KeypointGNN,
    KeypointPairs,
    PermaKeyObservation,
    RecurrentDQN,
    VecPermaKeyObservation,
)
from sb3_permakey.encoders.masked_convolution import MaskedMaps
from sb3_permakey.encoders.parts import with_waves
from sb3_permakey.keypoints import save_checkpoint
from sb3_permakey.keypoints.layers import gaussian_windows, same_conv2d

SMALL = {"learning_starts": 50, "buffer_size": 1000}


@pytest.fixture
def env(checkpoint):
    return PermaKeyObservation(MovingSquare(), checkpoint, keep_image=True)


def keypoint_space(count: int, channels: int = 6, *, confidence: bool = False) -> spaces.Dict:
    entries = {
        "keypoints": spaces.Box(-1, 1, (count, 2), np.float32),
        "features": spaces.Box(0, np.inf, (count, channels), np.float32),
    }
    if confidence:
        entries["confidence"] = spaces.Box(0, 1, (count,), np.float32)
    return spaces.Dict(entries)


def observations_of(
    count: int, batch: int = 3, channels: int = 6, *, confidence: bool = False
) -> dict[str, torch.Tensor]:
    observations = {"keypoints": torch.rand(batch, count, 2), "features": torch.rand(batch, count, channels)}
    return {**observations, "confidence": torch.rand(batch, count)} if confidence else observations


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


def test_cnn_masks_the_trunks_features_with_the_windows(env):
    cnn = KeypointCNN(env.observation_space, filters=8)
    image = torch.rand(2, 84, 84, 3)
    centers = torch.tensor([[[0.5, 0.5]] * NUM_KEYPOINTS, [[-0.5, 0.0]] * NUM_KEYPOINTS])
    masked = cnn.prepare_observations({"image": image, "keypoints": centers})["masked"]
    windows = NUM_KEYPOINTS * gaussian_windows(centers[:, :1], 42, 0.1)
    assert torch.allclose(masked, cnn.trunk(image.permute(0, 3, 1, 2)) * windows, atol=1e-5)
    assert masked.shape == (2, 64, 42, 42)


def test_cnn_takes_channels_first_and_last_alike(env):
    torch.manual_seed(0)
    cnn = KeypointCNN(env.observation_space, filters=8)
    first = copy.copy(env.observation_space)
    first.spaces = {**first.spaces, "image": spaces.Box(0, 255, (3, 84, 84), np.uint8)}
    torch.manual_seed(0)
    channels_first = KeypointCNN(first, filters=8)
    image = torch.rand(2, 84, 84, 3)
    observations = {"keypoints": torch.zeros(2, NUM_KEYPOINTS, 2), "image": image}
    transposed = {**observations, "image": image.permute(0, 3, 1, 2)}
    assert torch.allclose(cnn.eval()(observations), channels_first.eval()(transposed), atol=1e-6)


def frames_and_keypoints(env: PermaKeyObservation, steps: int = 12) -> dict[str, torch.Tensor]:
    """Observations of some steps of an episode, images as floats."""
    env.action_space.seed(0)
    observed = [env.reset(seed=0)[0], *(env.step(env.action_space.sample())[0] for _ in range(steps - 1))]
    batch = {name: torch.from_numpy(np.stack([part[name] for part in observed])) for name in observed[0]}
    return {**batch, "image": batch["image"].float() / 255}


def cnn_written_out(cnn: KeypointCNN, observations: dict[str, torch.Tensor]) -> torch.Tensor:
    """Appendix A.2.3, of whole maps."""
    maps = observations["image"].permute(0, 3, 1, 2)
    for weight, bias, stride in cnn.trunk.layers():
        maps = same_conv2d(maps, weight, bias, stride).relu()
    maps = maps * gaussian_windows(observations["keypoints"], 42, 0.1).sum(dim=1, keepdim=True)
    for block, stride in zip(cnn.convolutions.blocks, (1, 1, 2, 1), strict=True):
        norm, maps = block.norm, same_conv2d(maps, block.conv.weight, stride=stride)
        # In evaluation mode with the running statistics, which this leaves as they are.
        means, variances = (norm.running_mean, norm.running_var) if not norm.training else (None, None)
        maps = F.batch_norm(maps, means, variances, norm.weight, norm.bias, norm.training, 0.1, norm.eps).relu()
    linear = cnn.output[1]
    return (maps.flatten(1) @ linear.weight.t() + linear.bias).relu()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("prepared", [True, False])
def test_cnn_equals_the_computation_written_out(env, training, prepared):
    torch.manual_seed(0)
    cnn, observations = KeypointCNN(env.observation_space, filters=8).train(training), frames_and_keypoints(env)
    if not training:
        for block in cnn.convolutions.blocks:
            torch.nn.init.uniform_(block.norm.running_var, 0.5, 2)
            torch.nn.init.uniform_(block.norm.running_mean, -0.5, 0.5)
    expected = cnn_written_out(cnn, observations)
    given = cnn.prepare_observations(observations) if prepared else observations
    found = cnn(given)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(cnn(given), expected, atol=1e-5, rtol=1e-4)
    factors = torch.randn(found.shape)
    gradients, written_out = (
        torch.autograd.grad((features * factors).sum(), list(cnn.parameters())) for features in (found, expected)
    )
    for gradient, other in zip(gradients, written_out, strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-5 * float(other.abs().max()) + 1e-6, rtol=1e-3)


@pytest.mark.parametrize("few", [False, True])
def test_cnn_in_bfloat16(env, few):
    torch.manual_seed(0)
    exact = KeypointCNN(env.observation_space, filters=16)
    rounded = KeypointCNN(env.observation_space, filters=16, precision="bfloat16")
    rounded.load_state_dict(exact.state_dict())
    observations = {name: part[: 4 if few else 12] for name, part in frames_and_keypoints(env).items()}
    for cnn in (exact, rounded):
        cnn(observations).square().sum().backward()
    found, expected = rounded.eval()(observations), exact.eval()(observations)
    assert found.dtype == torch.float32
    assert 0 < (found - expected).norm() < 0.02 * expected.norm()
    assert torch.equal(rounded.trunk.kernel_1, exact.trunk.kernel_1)
    gradients = [torch.cat([part.grad.flatten() for part in cnn.parameters()]) for cnn in (rounded, exact)]
    assert torch.cosine_similarity(*gradients, dim=0) > 0.99


def test_cnn_takes_a_precision_that_is_known(env):
    auto = KeypointCNN(env.observation_space, filters=4, precision="auto").eval()
    assert auto(frames_and_keypoints(env)).dtype == torch.float32
    with pytest.raises(ValueError, match="precision must be one of float32, bfloat16, auto, not 'float16'"):
        KeypointCNN(env.observation_space, precision="float16")


def test_cnn_prepares_once_what_its_rows_are_of(env):
    torch.manual_seed(0)
    cnn, observations = KeypointCNN(env.observation_space, filters=8).eval(), frames_and_keypoints(env)
    prepared = cnn.prepare_observations(observations)
    assert isinstance(prepared["masked"], MaskedMaps)
    few = {name: part[:3] for name, part in observations.items()}
    assert isinstance(cnn.prepare_observations(few)["masked"], torch.Tensor)
    torch.testing.assert_close(cnn({"masked": prepared["masked"][0:3]}), cnn(few), atol=1e-5, rtol=1e-4)


def test_cnn_looks_at_no_values_of_another_device(env):
    # Which stands for a GPU, where looking would be waiting.
    cnn = KeypointCNN(env.observation_space, filters=4).to("meta")
    observations = {"keypoints": torch.empty(9, NUM_KEYPOINTS, 2), "image": torch.empty(9, 84, 84, 3)}
    assert cnn({name: part.to("meta") for name, part in observations.items()}).shape == (9, 128)


def test_cnn_of_frames_without_anything_alike(env):
    torch.manual_seed(0)
    cnn = KeypointCNN(env.observation_space, filters=4).eval()
    observations = {"keypoints": torch.rand(8, NUM_KEYPOINTS, 2), "image": torch.rand(8, 84, 84, 3)}
    assert isinstance(cnn.prepare_observations(observations)["masked"], torch.Tensor)
    torch.testing.assert_close(cnn(observations), cnn_written_out(cnn, observations), atol=1e-5, rtol=1e-4)


def test_cnn_has_a_gradient_of_the_places(env):
    torch.manual_seed(0)
    cnn, observations = KeypointCNN(env.observation_space, filters=4).eval(), frames_and_keypoints(env)
    centers = observations["keypoints"].requires_grad_()
    found, expected = (
        torch.autograd.grad(features.sum(), centers)[0]
        for features in (cnn(observations), cnn_written_out(cnn, observations))
    )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_cnn_trunk_does_not_learn(env):
    cnn = KeypointCNN(env.observation_space, filters=8)
    assert not any("trunk" in name for name, _ in cnn.named_parameters())
    assert any("trunk" in name for name in cnn.state_dict())


def test_cnn_has_the_papers_layers(env):
    blocks = KeypointCNN(env.observation_space).convolutions.blocks
    assert [(block.conv.out_channels, block.conv.kernel_size[0], block.stride) for block in blocks] == [
        (128, 3, 1),
        (128, 3, 1),
        (128, 3, 2),
        (128, 3, 1),
    ]


def test_cnn_names_what_it_lacks(env, keypoint_model):
    plain = spaces.Dict(dict(env.observation_space.spaces))
    with pytest.raises(ValueError, match="does not carry the keypoint model's trunk"):
        KeypointCNN(plain)
    assert KeypointCNN(plain, checkpoint=keypoint_model, filters=4).trunk.strides == (1, 2)
    del plain.spaces["image"]
    with pytest.raises(ValueError, match="keep_image=True"):
        KeypointCNN(plain)


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


@pytest.mark.parametrize(
    ("algorithm", "policy", "policy_kwargs"),
    [
        (
            DQN,
            "MultiInputPolicy",
            {"features_extractor_class": KeypointCNN, "features_extractor_kwargs": {"filters": 4}},
        ),
        (RecurrentDQN, "PermaKeyPolicy", {"keypoint_encoder": "cnn", "features_extractor_kwargs": {"filters": 4}}),
    ],
)
def test_an_agent_with_the_cnn_loads_where_its_checkpoint_is_gone(
    keypoint_model, tmp_path, algorithm, policy, policy_kwargs
):
    path = save_checkpoint(keypoint_model, tmp_path / "model.safetensors")
    policy_kwargs["features_extractor_kwargs"]["checkpoint"] = str(path)
    env = PermaKeyObservation(MovingSquare(), path, keep_image=True)
    settings = {"buffer_size": 100, "learning_starts": 10, "batch_size": 4}
    model = algorithm(policy, env, policy_kwargs=policy_kwargs, seed=0, **settings)
    model.learn(24)
    model.save(tmp_path / "agent.zip")
    observation, _ = env.reset(seed=0)
    path.unlink()
    loaded = algorithm.load(tmp_path / "agent.zip")
    before, after = (one.policy.state_dict() for one in (model, loaded))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert loaded.predict(observation, deterministic=True)[0] == model.predict(observation, deterministic=True)[0]


@pytest.mark.parametrize("encoder", [KeypointGNN, KeypointPairs, KeypointAttention, KeypointCNN])
def test_stacked_keypoints_are_refused_in_a_sentence(encoder, checkpoint):
    env = VecFrameStack(
        VecPermaKeyObservation(DummyVecEnv([MovingSquare]), checkpoint, keep_image=True), 4, channels_order="last"
    )
    with pytest.raises(ValueError, match=r"one frame's keypoints \(K, 2\).*leave VecFrameStack out"):
        encoder(env.observation_space)


def pairs_written_out(encoder: KeypointPairs, observations: dict[str, torch.Tensor]) -> torch.Tensor:
    """KeypointPairs' features, node by node and message by message."""
    rows = []
    for b in range(len(observations["keypoints"])):
        nodes = []
        for k in range(observations["keypoints"].shape[1]):
            place = with_waves(observations["keypoints"][b, k], encoder.position_frequencies)
            parts = [encoder.normalise_features(observations["features"][b, k]), place]
            if "confidence" in observations:
                parts.append(observations["confidence"][b, k : k + 1])
            if "motion" in observations:
                parts.append(10 * observations["motion"][b, k])
            nodes.append(encoder.encode_nodes(torch.cat(parts)))
        both = []
        for receiver in nodes:
            messages = [(encoder.as_receiver(receiver) + encoder.as_sender(sender)).relu() for sender in nodes]
            both.append(torch.cat([receiver, torch.stack(messages).mean(dim=0)]))
        stacked = torch.stack(both)
        rows.append(encoder.normalise_pooled(torch.cat([stacked.mean(dim=0), stacked.max(dim=0).values])))
    return torch.stack(rows)


@pytest.mark.parametrize(("confidence", "history"), [(False, 0), (True, 0), (True, 2)])
def test_pairs_equal_messages_written_out(confidence, history):
    torch.manual_seed(0)
    space, observations = keypoint_space(5, confidence=confidence), observations_of(5, confidence=confidence)
    if history:
        space = spaces.Dict({**space.spaces, "motion": spaces.Box(-0.3, 0.3, (5, 2 * history), np.float32)})
        observations["motion"] = torch.rand(3, 5, 2 * history) * 0.6 - 0.3
    encoder = KeypointPairs(space, units=8)
    found = encoder(observations)
    assert found.shape == (3, encoder.features_dim) == (3, 32)
    torch.testing.assert_close(found, pairs_written_out(encoder, observations))
    order = torch.tensor([3, 0, 4, 1, 2])
    permuted = {name: values[:, order] for name, values in observations.items()}
    torch.testing.assert_close(encoder(permuted), found)


def test_dropout_leaves_whole_keypoints_out_while_learning_alone():
    torch.manual_seed(0)
    observations = observations_of(5)
    encoder, without = (KeypointPairs(keypoint_space(5), units=8, keypoint_dropout=share) for share in (0.5, 0.0))
    without.load_state_dict(encoder.state_dict())
    seen = []
    encoder.as_sender.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach()))
    torch.testing.assert_close(encoder.eval()(observations), without(observations))
    whole = seen.pop()
    encoder.train()
    for _ in range(40):
        encoder(observations)
    nodes = torch.stack(seen)
    left_out = (nodes == 0).all(dim=-1)
    assert 0.4 < left_out.float().mean() < 0.6
    # A node that stays counts twice, so that their mean stays.
    torch.testing.assert_close(nodes[~left_out], (2 * whole).expand_as(nodes)[~left_out])


def test_feature_dropout_touches_features_alone():
    torch.manual_seed(0)
    observations = observations_of(5)
    encoder = KeypointPairs(keypoint_space(5), units=8, feature_dropout=0.5)
    seen = []
    encoder.encode_nodes.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach()))
    encoder.eval()(observations)
    encoder.train()(observations)
    whole, dropped = seen
    channels = observations["features"].shape[-1]
    torch.testing.assert_close(dropped[..., channels:], whole[..., channels:])
    lost = (dropped[..., :channels] == 0).float().mean()
    assert 0.3 < lost < 0.7
    kept = dropped[..., :channels] != 0
    torch.testing.assert_close(dropped[..., :channels][kept], 2 * whole[..., :channels][kept])


@pytest.mark.parametrize("name", ["keypoint_dropout", "feature_dropout"])
@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_dropout_of_everything_is_refused(name, share):
    with pytest.raises(ValueError, match=f"{name} must be from 0 to below 1, not {share}"):
        KeypointPairs(keypoint_space(5), **{name: share})


def test_the_gnn_reads_displacements_where_there_are_any():
    torch.manual_seed(0)
    space = spaces.Dict({**keypoint_space(3).spaces, "motion": spaces.Box(-0.3, 0.3, (3, 4), np.float32)})
    gnn, observations = KeypointGNN(space), observations_of(3)
    still, moved = (gnn({**observations, "motion": torch.full((3, 3, 4), size)}) for size in (0.0, 0.1))
    assert (still - moved).abs().max() > 1e-5  # fresh weights shrink what they see, rounding is a thousandth of that
