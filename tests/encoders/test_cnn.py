import copy

import numpy as np
import pytest
import torch
from conftest import NUM_KEYPOINTS, MovingSquare
from gymnasium import spaces
from stable_baselines3 import DQN
from torch.nn import functional as F

from sb3_permakey import (
    KeypointCNN,
    PermaKeyObservation,
    RecurrentDQN,
)
from sb3_permakey.encoders.masked_convolution import MaskedMaps
from sb3_permakey.keypoints import save_checkpoint
from sb3_permakey.keypoints.layers import gaussian_windows, same_conv2d


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


@pytest.fixture
def env(checkpoint):
    return PermaKeyObservation(MovingSquare(), checkpoint, keep_image=True)


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
