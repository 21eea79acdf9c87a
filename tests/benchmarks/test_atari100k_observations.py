import numpy as np
import pytest
from conftest import NUM_KEYPOINTS, MovingSquare
from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks.atari100k.observations import (
    NOWHERE,
    POINTS,
    GrayFrame,
    GridPoints,
    ObjectSlots,
    PointsInInfo,
    RandomPoints,
    VecPointObservation,
    with_points,
)
from sb3_permakey.envs.atari import make_atari_env
from sb3_permakey.keypoints import KeypointDetector, ReadoutConfig
from sb3_permakey.scores import FrameObjects


def objects(*names, displays=()):
    flags = np.array([name in displays for name in names], dtype=bool)
    return FrameObjects(np.zeros((len(names), 4)), tuple(name.split()[0] for name in names), names, flags)


class Listed:
    """Points from a list, one after another; the episode's number is in the first one's y."""

    def __init__(self, count):
        self.count, self.episode, self.frame = count, -1, 0

    def reset(self):
        self.episode += 1
        self.frame = 0

    def place(self):
        points = np.ones((self.count, 3))
        points[:, :2] = self.episode / 10, self.frame / 10
        points[-1] = NOWHERE
        self.frame += 1
        return points


def test_objects_keep_their_slots_while_others_come_and_go():
    slots = ObjectSlots(3)
    assert slots.assign(objects("Score 0", "Ghost 10", "Ghost 2", displays=("Score 0",))) == [2, 1, 0]
    # A ghost has gone for a while: its slot is empty, and a new object takes it.
    assert slots.assign(objects("Score 0", "Ghost 2", displays=("Score 0",))) == [1, None, 0]
    assert slots.assign(objects("Score 0", "Ghost 2", "Player 0", displays=("Score 0",))) == [1, 2, 0]
    # The ghost comes back: a display gives way, but not to another display, and the fifth object finds no slot.
    crowd = objects("Score 0", "Lives 0", "Ghost 2", "Player 0", "Ghost 10", "Shot 0", displays=("Score 0", "Lives 0"))
    assert slots.assign(crowd) == [2, 3, 4]
    assert ObjectSlots(1).assign(objects()) == [None]


def test_grid_and_random_points():
    grid = GridPoints(4)
    assert (grid.place() == grid.place()).all()
    # The middles of the four quarters, 20.5 px from the edge's pixel centre.
    assert sorted(set(grid.place()[:, 0].round(4))) == pytest.approx([-0.506, 0.506], abs=1e-3)
    random, again = RandomPoints(3, 1), RandomPoints(3, 1)
    first, second = random.place(), random.place()
    assert (first[:, :2] != second[:, :2]).all()
    assert (first == again.place()).all()
    assert np.abs(first[:, :2]).max() <= 1
    assert (first[:, 2] == 1).all()


def test_features_are_those_of_a_detector_whose_keypoints_lie_there(checkpoint):
    detector = KeypointDetector(checkpoint, precision="float32", device="cpu")
    env = MovingSquare()
    frames = np.stack([env.reset(seed=0)[0], env.step(2)[0]])
    detected = detector.detect(frames)
    envs = DummyVecEnv([lambda: PointsInInfo(MovingSquare(), GridPoints(NUM_KEYPOINTS))])
    observing = VecPointObservation(envs, checkpoint, ReadoutConfig("pointnet"), "cpu")
    points = np.concatenate([detected.centers, np.ones((2, NUM_KEYPOINTS, 1), np.float32)], axis=-1)
    points[1, 0, 2] = 0
    observed = observing.observe(frames, points)
    assert set(observed) == {"keypoints", "features"}
    assert observed["features"][0] == pytest.approx(detected.features[0], abs=1e-4)
    assert observed["features"][1, 1:] == pytest.approx(detected.features[1, 1:], abs=1e-4)
    assert (observed["features"][1, 0] == 0).all()


def test_points_of_last_and_first_frames_are_not_mixed_up(checkpoint):
    envs = DummyVecEnv([lambda: PointsInInfo(MovingSquare(2), Listed(NUM_KEYPOINTS)) for _ in range(2)])
    observing = VecPointObservation(envs, checkpoint, ReadoutConfig("peaks"), "cpu")
    first = observing.reset()
    assert observing.observation_space.contains({name: values[0] for name, values in first.items()})
    assert first["keypoints"][0, 0] == pytest.approx([0, 0])
    assert first["confidence"][0].tolist() == [1, 1, 1, 0]
    observing.step([0, 0])
    observations, _, dones, infos = observing.step([0, 0])
    assert dones.all()
    assert observations["keypoints"][1, 0] == pytest.approx([0.1, 0.0])
    last = infos[1]["terminal_observation"]
    assert last["keypoints"][0] == pytest.approx([0.0, 0.2])
    assert observing.observation_space.contains(last)


def test_true_positions_follow_the_game():
    pytest.importorskip("ocatari")
    env = with_points(make_atari_env("MsPacman", seed=0), "true", "MsPacman", 7, 0)
    _, info = env.reset()
    seen = [info[POINTS]]
    for step in range(80):
        _, _, terminated, truncated, info = env.step(step // 10 % 5)
        assert not terminated
        assert not truncated
        seen.append(info[POINTS])
    points = np.stack(seen)
    assert points.dtype == np.float32
    assert points.shape == (81, 7, 3)
    assert np.abs(points[..., :2]).max() <= 1
    player = points[:, env.placer.slots.holders.index("Player 0")]
    assert (player[:, 2] == 1).all()
    assert np.ptp(player[:, :2], axis=0).max() > 0.05
    # It does not jump: three pixels a step at most.
    assert np.abs(np.diff(player[20:, :2], axis=0)).max() < 0.1
    env.reset()
    assert env.placer.slots.holders[0] == "Ghost 1"


def test_gray_frames():
    env = GrayFrame(MovingSquare())
    frame, _ = env.reset(seed=0)
    assert env.observation_space.contains(frame)
    assert set(np.unique(frame)) == {60, 255}
