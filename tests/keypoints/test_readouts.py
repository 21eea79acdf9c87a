import importlib
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import NUM_KEYPOINTS, MovingSquare, square_frames
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_permakey import PermaKeyObservation, RecurrentDQN, VecPermaKeyObservation
from sb3_permakey.envs.keypoints import KeypointSpace
from sb3_permakey.keypoints import (
    READOUTS,
    Distilled,
    DistilledConfig,
    KeypointDetector,
    PermaKey,
    PermaKeyConfig,
    ReadoutConfig,
    Transporter,
    TransporterConfig,
)
from sb3_permakey.play.saved_agents import FrameAgent


@pytest.fixture
def toy(monkeypatch):
    """A stranger's module, whose readout is registered for one test."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "toys")
    known = dict(READOUTS)
    yield importlib.import_module("brightest_readout")
    sys.modules.pop("brightest_readout", None)
    READOUTS.clear()
    READOUTS.update(known)


def test_a_config_names_no_readout_until_it_is_completed():
    config = ReadoutConfig(surround_px=18.0)
    assert not config.is_named
    assert config.named("peaks") == ReadoutConfig("peaks", surround_px=18.0)
    assert ReadoutConfig("pointnet").named("peaks") == ReadoutConfig("pointnet")
    model = PermaKey(PermaKeyConfig(num_keypoints=3))
    with pytest.raises(ValueError, match="surround_px is a setting of peaks alone: it needs the readout peaks"):
        config.completed(model)
    assert ReadoutConfig().completed(model) == ReadoutConfig("pointnet", 3)
    assert ReadoutConfig("peaks", 5).completed(model) == ReadoutConfig("peaks", 5)


def test_a_model_without_a_pointnet_is_read_as_peaks():
    model = Distilled(DistilledConfig(num_keypoints=3, filters=(4, 4), units=4))
    assert ReadoutConfig(surround_px=18.0).completed(model) == ReadoutConfig("peaks", 3, surround_px=18.0)
    assert KeypointDetector(model, num_keypoints=5).readout == ReadoutConfig("peaks", 5)
    with pytest.raises(ValueError, match="^the model has no PointNet: readout='peaks' reads its keypoints$"):
        KeypointDetector(model, readout="pointnet")


def test_a_shipped_student_names_the_teacher_that_has_a_pointnet():
    with pytest.raises(ValueError, match="^mspacman has no PointNet: .* its keypoints, and mspacman-teacher has one$"):
        KeypointDetector("mspacman", readout="pointnet")


@pytest.mark.parametrize(
    ("config", "given", "flags"),
    [
        (ReadoutConfig(), {}, {}),
        (ReadoutConfig("pointnet"), {}, {"readout": "pointnet"}),
        (ReadoutConfig(None, 6), {"num_keypoints": 6}, {"readout": "peaks", "num_keypoints": 6}),
        (ReadoutConfig("peaks", centroid_px=6.0), {}, {"readout": "peaks"}),
        (ReadoutConfig("peaks", centroid_px=7.0), {"centroid_px": 7.0}, {"readout": "peaks", "centroid_px": 7.0}),
    ],
)
def test_what_is_given_and_the_flags_that_give_it(config, given, flags):
    assert config.given() == given
    assert config.as_flags() == flags
    assert ReadoutConfig(**flags).as_flags() == flags


def test_settings_beside_a_config_take_the_place_of_its_own(keypoint_model):
    config = ReadoutConfig("peaks", 6, surround_px=18.0)
    assert KeypointDetector(keypoint_model, readout=config).readout == config
    found = KeypointDetector(keypoint_model, readout=config, num_keypoints=2).readout
    assert found == ReadoutConfig("peaks", 2, surround_px=18.0)
    with pytest.raises(TypeError, match="sides_px"):
        PermaKeyObservation(MovingSquare(), keypoint_model, readout="peaks", sides_px=3)


@pytest.mark.parametrize("wrapper", [PermaKeyObservation, VecPermaKeyObservation])
def test_a_config_and_its_keywords_make_the_same_observations(keypoint_model, wrapper):
    def space(**settings):
        env = DummyVecEnv([MovingSquare]) if wrapper is VecPermaKeyObservation else MovingSquare()
        return wrapper(env, keypoint_model, **settings).observation_space

    config = ReadoutConfig("peaks", 6, 8.0, 18.0, 10.0)
    keywords = {"num_keypoints": 6, "min_distance_px": 8.0, "surround_px": 18.0, "centroid_px": 10.0}
    assert space(readout=config) == space(readout="peaks", **keywords)
    assert space(readout=config) != space(readout="peaks", **{**keywords, "centroid_px": 8.0})


def test_the_models_that_each_readout_reads():
    models = PermaKey(PermaKeyConfig()), Transporter(TransporterConfig())
    assert [[kind.name for kind in READOUTS.values() if kind.reads(model)] for model in models] == [
        ["pointnet", "peaks"],
        ["pointnet"],
    ]


def test_a_readout_from_outside_is_read_like_those_of_the_package(toy):
    model, frames = Transporter(TransporterConfig(num_keypoints=3)), np.zeros((1, 84, 84, 3), np.uint8)
    frames[0, [20, 83], [83, 0], 1] = 255, 51
    frames[0, 30, 5, 0] = 204
    detector = KeypointDetector(model, readout=toy.BrightestConfig("brightest", 2, channel=1))
    found = detector.detect(frames)
    np.testing.assert_allclose(found.centers[0], [(20 / 83 * 2 - 1, 1), (1, -1)], atol=1e-6)
    np.testing.assert_allclose(found.confidence[0], [1.0, 0.2], atol=1e-6)
    assert found.features.shape == (1, 2, 32)
    red = KeypointDetector(model, readout="brightest", num_keypoints=1).detect(frames)
    np.testing.assert_allclose(red.centers[0], [(30 / 83 * 2 - 1, 5 / 83 * 2 - 1)], atol=1e-6)
    with pytest.raises(ValueError, match="channel is a setting of brightest alone: it needs the readout brightest"):
        toy.BrightestConfig("peaks", channel=1)


def test_an_agent_learns_from_a_readout_from_outside_and_plays_it(toy, checkpoint, tmp_path):
    config = toy.BrightestConfig("brightest", 2, channel=2)
    env = PermaKeyObservation(MovingSquare(), checkpoint, readout=config)
    RecurrentDQN("PermaKeyPolicy", env, buffer_size=100, learning_starts=20, batch_size=4).learn(40).save(
        tmp_path / "agent.zip"
    )
    agent = FrameAgent(tmp_path / "agent.zip", checkpoint)
    assert agent.detector.readout == config
    assert agent.act(square_frames(1), np.array([True])).shape == (1,)


def test_a_space_brings_its_readout_from_outside_along(toy, keypoint_model):
    packed = pickle.dumps(KeypointSpace(KeypointDetector(keypoint_model, readout="brightest"), keep_image=False))
    del READOUTS["brightest"], sys.modules["brightest_readout"]
    space = pickle.loads(packed)
    assert space.readout.in_use() == {"readout": "brightest", "num_keypoints": NUM_KEYPOINTS, "channel": 0}
    del READOUTS["brightest"]
    with pytest.raises(ValueError, match="readout must be one of pointnet, peaks, not 'brightest'"):
        space.readout.without_unused()


def test_a_number_that_only_some_readouts_take(keypoint_model):
    with pytest.raises(ValueError, match=f"PointNet of {NUM_KEYPOINTS} keypoints, not 9: only readout='peaks' can"):
        KeypointDetector(keypoint_model, num_keypoints=9)
