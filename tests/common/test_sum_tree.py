import pickle

import numpy as np
import pytest

from sb3_permakey.common.sum_tree import SumTree


@pytest.mark.parametrize("size", [1, 2, 3, 63, 64, 65, 5000])
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


def test_draws_are_those_of_running_sums():
    """Of three levels, with many leaves set at once and few."""
    weights = np.random.default_rng(0).random(5000) ** 4
    weights[1000:3000] = 0.0
    tree = SumTree(5000)
    tree.set(np.arange(5000), 1.0)
    tree.set(np.arange(5000), weights)
    tree.set(np.array([7, 4999, 7]), np.array([5.0, 2.0, 9.0]))
    weights[[7, 4999]] = 9.0, 2.0
    np.random.seed(3)
    targets = (np.arange(200) + np.random.random(200)) / 200 * weights.sum()
    np.random.seed(3)
    np.testing.assert_array_equal(tree.draw(200), np.searchsorted(weights.cumsum(), targets, side="right"))


def test_a_pickled_tree_of_an_older_version_has_the_same_weights():
    """A binary tree in one array, whose leaves came last."""
    tree = SumTree.__new__(SumTree)
    weights = np.array([1.0, 2.0, 3.0])
    sums = np.array([0.0, 6.0, 3.0, 3.0, *weights, 0.0])
    tree.__setstate__({"size": 3, "_depth": 2, "_first_leaf": 4, "_sums": sums})
    np.testing.assert_array_equal(tree.weights(np.arange(3)), weights)
    assert pickle.loads(pickle.dumps(tree)).total == tree.total == 6.0
