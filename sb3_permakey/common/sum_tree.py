"""Draws of indices in proportion to their weights."""

from __future__ import annotations

from typing import Any

import numpy as np

CHILDREN = 64
"""Of each node: a step down costs some numpy calls, however many children are looked at, so that few wide steps are
quickest."""


class SumTree:
    """Weights of many leaves, of which one or many are drawn or changed in logarithmic time.

    A tree of nodes with `CHILDREN` children each, one array (nodes, CHILDREN) a level from the leaves up. Every
    operation is one vectorised pass per level. Sums are always of a node's children, so that no rounding error builds
    up.

    :param size: number of leaves; all weigh 0 at first
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._levels = [np.zeros((-(-size // CHILDREN), CHILDREN))]
        while len(self._levels[-1]) > 1:
            self._levels.append(np.zeros((-(-len(self._levels[-1]) // CHILDREN), CHILDREN)))

    @property
    def total(self) -> float:
        """Sum of all weights."""
        return float(self._levels[-1].sum())

    def weights(self, leaves: np.ndarray) -> np.ndarray:
        """Weights of leaves (k,), float64 (k,)."""
        return self._levels[0].reshape(-1)[leaves]

    def set(self, leaves: np.ndarray, weights: np.ndarray | float) -> None:
        """Give leaves (k,) new weights (k,), not negative; of a leaf that comes twice, the last one counts."""
        nodes = np.asarray(leaves)
        self._levels[0].reshape(-1)[nodes] = weights
        for level, above in zip(self._levels[:-1], self._levels[1:], strict=True):
            nodes = nodes // CHILDREN if len(nodes) < len(level) else np.arange(len(level))
            above.reshape(-1)[nodes] = level[nodes].sum(axis=1)

    def draw(self, count: int) -> np.ndarray:
        """Leaves drawn in proportion to their weights, one from each of ``count`` equal parts of the total (count,).

        Stratified, as in prioritized experience replay (Schaul et al. 2016, appendix B.2.1).
        """
        targets = (np.arange(count) + np.random.random(count)) * (self.total / count)
        nodes, every = np.zeros(count, dtype=np.int64), np.arange(count)
        for level in reversed(self._levels):
            ends = level[nodes].cumsum(axis=1)
            # Only to children that weigh something, where rounding points past the last of them, too.
            targets = np.minimum(targets, np.nextafter(ends[:, -1], 0.0))
            children = (ends <= targets[:, None]).sum(axis=1)
            targets = targets - np.where(children > 0, ends[every, children - 1], 0.0)
            nodes = nodes * CHILDREN + children
        return nodes

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "_levels" in state:
            self.__dict__.update(state)
            return
        # Of a pickled buffer that an older version saved: a binary tree in one array, its leaves last.
        self.__init__(state["size"])  # type: ignore[misc]
        first = state["_first_leaf"]
        self.set(np.arange(self.size), state["_sums"][first : first + self.size])
