"""Draws of indices in proportion to their weights."""

import numpy as np


class SumTree:
    """Weights of many leaves, of which one or many are drawn or changed in logarithmic time.

    A complete binary tree in one array: node i has the children 2 i and 2 i + 1, the root is node 1. Every operation is
    one vectorised pass per level. Sums are always of the two children, so that no rounding error builds up.

    :param size: number of leaves; all weigh 0 at first
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._depth = max(size - 1, 1).bit_length()
        self._first_leaf = 1 << self._depth
        self._sums = np.zeros(2 * self._first_leaf)

    @property
    def total(self) -> float:
        """Sum of all weights."""
        return float(self._sums[1])

    def weights(self, leaves: np.ndarray) -> np.ndarray:
        """Weights of leaves (k,), float64 (k,)."""
        return self._sums[self._first_leaf + leaves]

    def set(self, leaves: np.ndarray, weights: np.ndarray | float) -> None:
        """Give leaves (k,) new weights (k,), not negative; of a leaf that comes twice, the last one counts."""
        nodes = self._first_leaf + np.asarray(leaves)
        self._sums[nodes] = weights
        for _ in range(self._depth):
            nodes = nodes >> 1
            self._sums[nodes] = self._sums[2 * nodes] + self._sums[2 * nodes + 1]

    def draw(self, count: int) -> np.ndarray:
        """Leaves drawn in proportion to their weights, one from each of ``count`` equal parts of the total (count,).

        Stratified, as in prioritized experience replay (Schaul et al. 2016, appendix B.2.1).
        """
        targets = (np.arange(count) + np.random.random(count)) * (self.total / count)
        nodes = np.ones(count, dtype=np.int64)
        for _ in range(self._depth):
            left = 2 * nodes
            sums = self._sums[left]
            # Never into an empty part, where rounding points past the last weight.
            right = (targets >= sums) & (self._sums[left + 1] > 0)
            targets = np.where(right, targets - sums, targets)
            nodes = left + right
        return nodes - self._first_leaf
