import itertools

import numpy as np
import pytest
import torch
from conftest import MovingSquare
from gymnasium import spaces
from test_encoders import keypoint_space, observations_of

from sb3_permakey import KeypointPairs, PermaKeyObservation, Rainbow
from sb3_permakey.encoders.frame_context import FrameContext, shifted

FIRST, LAST = (spaces.Box(0, 255, shape, np.uint8) for shape in ((3, 84, 84), (84, 84, 3)))


def test_reads_frames_with_channels_first_or_last():
    torch.manual_seed(0)
    last = FrameContext(LAST)
    first = FrameContext(FIRST)
    first.load_state_dict(last.state_dict())
    images = torch.rand(2, 84, 84, 3)
    found = last(images)
    assert found.shape == (2, last.features_dim) == (2, 512)
    torch.testing.assert_close(first(images.permute(0, 3, 1, 2)), found)


def test_the_first_layer_sees_patches_of_4x4_pixels():
    context = FrameContext(LAST)
    images = torch.rand(1, 84, 84, 3)
    patch = images[0, 8:12, 20:24]
    expected = (context.layers[0].weight * patch.permute(2, 0, 1)).sum(dim=(1, 2, 3))
    torch.testing.assert_close(context.layers[0](images.permute(0, 3, 1, 2))[0, :, 2, 5], expected)


def test_tells_frames_apart_whose_keypoints_are_the_same():
    torch.manual_seed(0)
    space = spaces.Dict({**keypoint_space(5).spaces, "image": LAST})
    observations = {**observations_of(5), "image": torch.rand(3, 84, 84, 3)}
    other = {**observations, "image": torch.rand(3, 84, 84, 3)}
    encoder = KeypointPairs(space, context="image")
    seen, unlike = encoder(observations), encoder(other)
    assert encoder.features_dim == seen.shape[1] == 256 + 512
    torch.testing.assert_close(seen[:, :256], unlike[:, :256])
    assert (seen[:, 256:] - unlike[:, 256:]).abs().mean() > 0.1


def test_frames_are_shifted_and_their_edges_repeated():
    torch.manual_seed(0)
    images = torch.arange(64 * 2 * 25.0).view(64, 2, 5, 5)
    found = shifted(images, 1)
    seen = set()
    for before, after in zip(images, found, strict=True):
        for down, right in itertools.product((-1, 0, 1), repeat=2):
            rows, columns = ((torch.arange(5) + by).clamp(0, 4) for by in (down, right))
            if torch.equal(after, before[:, rows][:, :, columns]):
                seen.add((down, right))
                break
        else:
            raise AssertionError("not a shifted frame")
    assert len(seen) == 9


def test_only_learning_shifts_frames():
    torch.manual_seed(0)
    context, images = FrameContext(LAST, shift_px=4), torch.rand(2, 84, 84, 3)
    assert (context(images) - context(images)).abs().max() > 0.01
    context.eval()
    assert torch.equal(context(images), context(images))
    with pytest.raises(ValueError, match="shift_px must be 0 or more, not -1"):
        FrameContext(LAST, shift_px=-1)


def test_says_what_it_needs():
    with pytest.raises(ValueError, match="keep_image=True"):
        KeypointPairs(keypoint_space(5), context="image")
    with pytest.raises(ValueError, match="context must be 'image' or None, not 'frame'"):
        KeypointPairs(keypoint_space(5), context="frame")


def test_rainbow_learns_with_it(checkpoint):
    env = PermaKeyObservation(MovingSquare(), checkpoint, history=1, keep_image=True)
    model = Rainbow(
        "PermaKeyPolicy",
        env,
        learning_starts=20,
        buffer_size=500,
        policy_kwargs={"features_extractor_kwargs": {"context": "image"}},
        seed=0,
    )
    before = model.q_net.features_extractor.frames.layers[0].weight.clone()
    model.learn(30)
    assert (model.q_net.features_extractor.frames.layers[0].weight - before).abs().max() > 0
