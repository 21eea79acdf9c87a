"""Whether returns lie where a distribution over them can tell them apart."""

from __future__ import annotations

import warnings

import numpy as np


class ReturnsWatch:
    """Warns once when rewards sum up to far more than the highest return of a categorical value head, or far less.

    Returns a little beyond the ends do no harm: BBF's agents have up to three times 10 on Atari, whose rewards are
    clipped, and learn with ends of 10. So a whole episode's may lie beyond an end by as much as the range is wide.

    :param n_envs: number of environments
    :param v_min: the lowest return that can be told from lower ones
    :param v_max: the highest
    """

    def __init__(self, n_envs: int, v_min: float, v_max: float) -> None:
        self._range = (v_min, v_max)
        self._returns, self._discounts = np.zeros(n_envs), np.ones(n_envs)
        self._warned = False

    def begin(self) -> None:
        """All environments begin new episodes, whatever became of those that ran."""
        self._returns[:], self._discounts[:] = 0.0, 1.0

    def note(self, rewards: np.ndarray, dones: np.ndarray, gamma: float) -> None:
        """A step of all environments.

        :param rewards: (n_envs,), as they are learned from
        :param dones: (n_envs,) whether an episode ended with it
        :param gamma: the discount
        """
        if self._warned:
            return
        self._returns += self._discounts * rewards
        self._discounts *= gamma
        v_min, v_max = self._range
        width = v_max - v_min
        dones = np.asarray(dones, dtype=bool)
        ended = self._returns[dones]
        beyond = rewards[(rewards < v_min) | (rewards > v_max)]
        if beyond.size:
            self._warn(f"a reward of {beyond[0]:.4g}")
        elif ended.size and (ended.max() > v_max + width or ended.min() < v_min - width):
            furthest = ended[np.abs(ended - (v_min + v_max) / 2).argmax()]
            self._warn(f"an episode's discounted rewards, which sum up to {furthest:.4g},")
        self._returns[dones], self._discounts[dones] = 0.0, 1.0

    def _warn(self, what: str) -> None:
        self._warned = True
        v_min, v_max = self._range
        warnings.warn(
            f"{what} cannot be told from others beyond v_min={v_min:g} and v_max={v_max:g}: give v_min and v_max that "
            'returns stay within, smaller rewards, or value_head="scalar".',
            stacklevel=4,
        )
