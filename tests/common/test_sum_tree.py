import numpy as np
import pytest

from sb3_permakey.common.sum_tree import SumTree


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 100])
def test_sums_are_those_of_the_leaves(size):
    rng = np.random.default_rng(size)
    tree, weights = SumTree(size), np.zeros(size)
    assert tree.total == 0
    for _ in range(20):
        leaves = rng.choice(size, size=min(size, 5), replace=False)
        new = rng.random(len(leaves)) * 10.0 ** rng.integers(-3, 4)
        tree.set(leaves, new)
        weights[leaves] = new
        np.testing.assert_array_equal(tree.weights(np.arange(size)), weights)
        assert tree.total == pytest.approx(weights.sum())


def test_leaves_are_drawn_in_proportion_to_their_weights():
    np.random.seed(0)
    tree = SumTree(5)
    tree.set(np.arange(5), np.array([1.0, 0.0, 3.0, 0.0, 6.0]))
    counts = np.bincount(np.concatenate([tree.draw(10) for _ in range(2000)]), minlength=5)
    assert counts[[1, 3]].tolist() == [0, 0]
    np.testing.assert_allclose(counts / counts.sum(), [0.1, 0.0, 0.3, 0.0, 0.6], atol=0.01)


def test_draws_are_spread_over_equal_parts():
    tree = SumTree(4)
    tree.set(np.arange(4), 1.0)
    for _ in range(20):
        assert tree.draw(4).tolist() == [0, 1, 2, 3]


def test_never_an_empty_leaf_after_rounding():
    np.random.seed(1)
    tree = SumTree(64)
    tree.set(np.arange(0, 64, 3), np.logspace(-12, 3, 22))
    tree.set(np.array([63]), 0.0)
    drawn = np.concatenate([tree.draw(64) for _ in range(300)])
    assert (tree.weights(drawn) > 0).all()
