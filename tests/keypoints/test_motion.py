import numpy as np

from sb3_permakey.keypoints.motion import JUMP, KeypointMotion


def places(*points):
    """Centers (B, K, 2) of frames with one keypoint each."""
    return np.array(points, dtype=np.float32)[:, None]


def test_displacements_newest_first_with_zeros_before_the_start():
    motion = KeypointMotion(2)
    path = [(0.0, 0.0), (0.1, 0.0), (0.1, 0.2), (0.0, 0.25)]
    seen = [motion.observe(places(point), [index == 0])[0, 0] for index, point in enumerate(path)]
    expected = [(0, 0, 0, 0), (0.1, 0, 0, 0), (0, 0.2, 0.1, 0), (-0.1, 0.05, 0, 0.2)]
    np.testing.assert_allclose(seen, expected, atol=1e-6)
    assert seen[0].dtype == np.float32
    np.testing.assert_array_equal(motion.observe(places((0.1, 0.2)), [True]), 0)
    np.testing.assert_allclose(motion.observe(places((0.1, 0.1)), [False])[0, 0], (0, -0.1, 0, 0), atol=1e-6)


def test_a_jump_is_no_motion_and_the_others_stay():
    motion = KeypointMotion(2)
    motion.observe(np.zeros((1, 2, 2), np.float32), [True])
    motion.observe(np.array([[(0.1, 0.0), (0.0, 0.1)]], np.float32), [False])
    far = np.array([[(0.1 + JUMP, 0.05), (0.0, 0.1 + 0.99 * JUMP)]], np.float32)
    expected = [[(0, 0, 0.1, 0), (0, 0.99 * JUMP, 0, 0.1)]]
    np.testing.assert_allclose(motion.observe(far, [False]), expected, atol=1e-6)
    np.testing.assert_allclose(motion.observe(far, [False])[0, 0], (0, 0, 0, 0), atol=1e-6)


def test_an_environment_not_seen_before_has_not_moved():
    motion = KeypointMotion(1)
    motion.observe(places((0.0, 0.0)), [True], [0])
    found = motion.observe(places((0.1, 0.0), (0.2, 0.0)), [False, False], [0, 3])
    np.testing.assert_allclose(found[:, 0], [(0.1, 0), (0, 0)], atol=1e-6)
    found = motion.observe(places((0.2, 0.0), (0.1, 0.0)), [False, False], [3, 0])
    np.testing.assert_allclose(found[:, 0], [(0, 0), (0, 0)], atol=1e-6)


def test_frames_of_one_environment_in_one_batch_follow_each_other():
    motion = KeypointMotion(2)
    motion.observe(places((0.0, 0.0), (0.5, 0.0)), [True, True])
    # An episode's last frame, the next one's first and its second, beside another environment's.
    centers = places((0.1, 0.0), (0.4, 0.0), (-0.5, 0.0), (-0.4, 0.0))
    found = motion.observe(centers, [False, False, True, False], [0, 1, 0, 0])
    expected = [(0.1, 0, 0, 0), (-0.1, 0, 0, 0), (0, 0, 0, 0), (0.1, 0, 0, 0)]
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-6)


def test_environments_that_go_on_keep_their_motions():
    motion = KeypointMotion(2)
    motion.keep([])
    for shift in (0.0, 0.1):
        motion.observe(places((shift, 0.0), (0.0, shift), (0.0, -shift)), [not shift] * 3)
    motion.keep([2, 1])
    found = motion.observe(places((0.0, -0.15), (0.0, 0.15)), [False, False])
    np.testing.assert_allclose(found[:, 0], [(0, -0.05, 0, -0.1), (0, 0.05, 0, 0.1)], atol=1e-6)
