import numpy as np

from benchmarks.atari100k.objects import ObjectObservation, describe_objects, kinds_of
from sb3_permakey.envs.atari import make_atari_env


def test_an_object_is_its_place_kind_size_and_colour():
    frame = np.zeros((84, 84, 3), np.uint8)
    frame[10:14, 20:30] = (255, 51, 0)
    boxes = np.array([[10.0, 20, 14, 30], [0, 0, 84, 84], [50, 50, 51, 51]])
    centers, features = describe_objects(frame, boxes, ("Floe", "Sea", "Unknown"), ["Bear", "Floe", "Sea"])
    # The middle of pixels 10 to 13 is 11.5, of pixels 0 to 83 41.5.
    np.testing.assert_allclose(centers, [[11.5 / 41.5 - 1, 24.5 / 41.5 - 1], [0, 0], [50 / 41.5 - 1, 50 / 41.5 - 1]])
    np.testing.assert_allclose(
        features,
        [
            [0, 1, 0, 4 / 84, 10 / 84, 1, 0.2, 0],
            [0, 0, 1, 1, 1, 1, 0.2, 0],
            [0, 0, 0, 1 / 84, 1 / 84, 0, 0, 0],
        ],
    )


def test_frostbites_floes_and_igloo_are_told_with_their_colours_and_sizes():
    env = ObjectObservation(make_atari_env("Frostbite", seed=0), "Frostbite")
    seen, _ = env.reset(seed=0)
    kinds = kinds_of("Frostbite")
    assert env.observation_space.contains(seen)
    assert set(kinds) >= {"Bear", "FloatingBlock", "House", "Player", "Temperature", "Lives"}

    def of_kind(name):
        return seen["features"][seen["features"][:, kinds.index(name)] == 1]

    floes = of_kind("FloatingBlock")
    assert len(floes) == 12
    assert len(of_kind("Player")) == len(of_kind("Temperature")) == 1
    # White, as long as nobody jumped on them.
    np.testing.assert_allclose(floes[:, -3:], 214 / 255, atol=0.03)
    start = {name: values.copy() for name, values in seen.items()}
    blocks = of_kind("House")[0, -4] if len(of_kind("House")) else 0.0
    # Down onto the first row of floes, which turns blue and adds a block to the igloo.
    for _ in range(40):
        seen, *_ = env.step(5)
        floes = of_kind("FloatingBlock")
        if (floes[:, -3] < 0.5).any():
            break
    blue = floes[floes[:, -3] < 0.5]
    assert len(blue) == 3
    assert (blue[:, -1] > 0.7).all()
    assert of_kind("House")[0, -4] > blocks
    # An object keeps its place in the order, and its motion is what it moved by.
    before = seen
    seen, *_ = env.step(0)
    moved = seen["keypoints"] - before["keypoints"]
    both = (seen["confidence"] == 1) & (before["confidence"] == 1) & (np.linalg.norm(moved, axis=1) <= 0.3)
    assert both.sum() >= 12
    np.testing.assert_allclose(seen["motion"][both, :2], moved[both], atol=1e-6)
    assert (start["motion"] == 0).all()


def test_mspacmans_power_pills_are_objects_and_its_pills_are_not():
    env = ObjectObservation(make_atari_env("MsPacman", seed=0), "MsPacman")
    seen, _ = env.reset(seed=0)
    kinds = kinds_of("MsPacman")
    assert "Pill" not in kinds
    assert seen["features"][:, kinds.index("PowerPill")].sum() >= 3
    assert seen["features"][:, kinds.index("Ghost")].sum() >= 3
