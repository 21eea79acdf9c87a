import numpy as np
import pytest
import torch
from gymnasium import spaces
from keypoint_spaces import keypoint_space, observations_of

from sb3_permakey import (
    KeypointPairs,
)
from sb3_permakey.encoders.parts import with_waves


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
