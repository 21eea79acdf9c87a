import itertools

import numpy as np
import pytest
import torch
from conftest import MovingSquare
from gymnasium import spaces
from keypoint_spaces import keypoint_space, observations_of

from sb3_permakey import KeypointPairs, PermaKeyObservation, Rainbow
from sb3_permakey.encoders.frame_context import GLIMPSE, FrameContext, Glimpses, shifted

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


def place_of(pixel):
    """The place (y, x) in [-1, 1] of a pixel of 84x84."""
    return torch.tensor(pixel, dtype=torch.float32) * 2 / 83 - 1


@pytest.mark.parametrize("space", [FIRST, LAST])
def test_a_glimpse_is_the_patches_around_its_keypoint(space):
    torch.manual_seed(0)
    glimpses = Glimpses(space, units=GLIMPSE**2, filters=1)
    with torch.no_grad():
        # A patch gives its mean red, and the layer after it passes all 49 of them on.
        glimpses.patches.weight.zero_()[0, 0] = 1 / 16
        glimpses.read.weight.copy_(torch.eye(GLIMPSE**2))
    glimpses.normalise = torch.nn.Identity()
    patches = torch.rand(2, 21, 21)
    images = patches.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
    images = torch.stack([images, torch.rand(2, 84, 84), torch.rand(2, 84, 84)], dim=1 if space is FIRST else 3)
    # In the middles of patches (10, 8) and (0, 20), and a quarter of the way from (10, 8) to the one below.
    places = [(41.5, 33.5), (1.5, 81.5), (42.5, 33.5)]
    seen = glimpses(images, torch.stack([place_of(place) for place in places]).expand(2, 3, 2)).unflatten(2, (7, 7))
    torch.testing.assert_close(seen[:, 0], patches[:, 7:14, 5:12])
    torch.testing.assert_close(seen[:, 1, 3:, :4], patches[:, :4, 17:])
    assert seen[:, 1, :3].abs().max() < 1e-5
    assert seen[:, 1, :, 4:].abs().max() < 1e-5
    torch.testing.assert_close(seen[:, 2], 0.75 * patches[:, 7:14, 5:12] + 0.25 * patches[:, 8:15, 5:12])


def test_tells_apart_what_lies_around_keypoints_and_nothing_else():
    torch.manual_seed(0)
    space = spaces.Dict({**keypoint_space(5).spaces, "image": LAST})
    encoder = KeypointPairs(space, context="glimpses")
    keypoints = place_of((41.5, 41.5)).expand(3, 5, 2)
    observations = {**observations_of(5), "keypoints": keypoints, "image": torch.rand(3, 84, 84, 3)}
    near, far = (observations["image"].clone() for _ in range(2))
    near[:, 30:34, 30:34], far[:, 20:24, 20:24] = 0, 0
    seen, unlike, same = (encoder({**observations, "image": image}) for image in (observations["image"], near, far))
    assert encoder.features_dim == seen.shape[1] == 256
    assert (seen - unlike).abs().max() > 0.01
    assert torch.equal(seen, same)


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
    for context in ("image", "glimpses"):
        with pytest.raises(ValueError, match="keep_image=True"):
            KeypointPairs(keypoint_space(5), context=context)
    with pytest.raises(ValueError, match="context must be 'image', 'glimpses' or None, not 'frame'"):
        KeypointPairs(keypoint_space(5), context="frame")
    with pytest.raises(ValueError, match="context_shift_px is of the context 'image'"):
        KeypointPairs(spaces.Dict({**keypoint_space(5).spaces, "image": LAST}), context_shift_px=4)


@pytest.mark.parametrize(("context", "layer"), [("image", "frames.layers.0"), ("glimpses", "glimpses.patches")])
def test_rainbow_learns_with_it(checkpoint, context, layer):
    env = PermaKeyObservation(MovingSquare(), checkpoint, history=1, keep_image=True)
    model = Rainbow(
        "PermaKeyPolicy",
        env,
        learning_starts=20,
        buffer_size=500,
        policy_kwargs={"features_extractor_kwargs": {"context": context}},
        seed=0,
    )
    weight = model.q_net.features_extractor.get_submodule(layer).weight
    before = weight.clone()
    model.learn(30)
    assert (weight - before).abs().max() > 0
