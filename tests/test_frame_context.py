import numpy as np
import pytest
import torch
from conftest import MovingSquare
from gymnasium import spaces
from test_extractors import keypoint_space, observations_of

from sb3_permakey import KeypointPairs, PermaKeyObservation, Rainbow
from sb3_permakey.frame_context import FrameContext

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
