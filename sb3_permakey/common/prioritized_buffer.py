"""Replay of the windows from which most is to be learned."""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecNormalize

from sb3_permakey.common.sequence_buffer import SequenceReplayBuffer
from sb3_permakey.common.sum_tree import SumTree
from sb3_permakey.common.windows import SequenceSamples


class PrioritizedSequenceReplayBuffer(SequenceReplayBuffer):
    """A SequenceReplayBuffer that draws windows by priority, as R2D2 does (Kapturowski et al. 2019, section 2.3).

    The windows to draw from overlap by half: one begins at every ``sequence_length // 2``-th step of an episode. A new
    window has the highest priority given so far. P(i) = p_i^alpha / sum_k p_k^alpha, and window i weighs
    (N P(i))^-beta in the loss, relative to the heaviest of its batch (Schaul et al. 2016, section 3.4).

    :param buffer_size: observations stored in all environments together
    :param observation_space: anything SB3 preprocesses
    :param action_space: ``Discrete``
    :param device: where the sampled tensors go
    :param n_envs: number of parallel environments
    :param alpha: exponent of the priorities; 0 draws uniformly
    :param beta: exponent of the importance weights; 0 for none
    :param kwargs: the other arguments of SequenceReplayBuffer
    :raises ValueError: if an argument is out of its range
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: torch.device | str = "auto",
        n_envs: int = 1,
        *,
        alpha: float = 0.9,
        beta: float = 0.6,
        **kwargs: Any,
    ) -> None:
        super().__init__(buffer_size, observation_space, action_space, device, n_envs, **kwargs)
        if alpha < 0 or beta < 0:
            raise ValueError(f"alpha and beta must not be negative, got {alpha} and {beta}.")
        self.alpha, self.beta = alpha, beta
        self._tree = SumTree(n_envs * self.buffer_size)
        self._highest = 1.0

    def set_exponents(self, alpha: float, beta: float) -> None:
        """Draw by other exponents from now on, what is stored too.

        :param alpha: exponent of the priorities
        :param beta: exponent of the importance weights
        """
        if alpha != self.alpha:
            everything = np.arange(self._tree.size)
            weights = self._tree.weights(everything)
            priorities = weights ** (1 / self.alpha) if self.alpha else weights
            self._tree.set(everything, np.where(weights > 0, priorities**alpha, 0.0))
        self.alpha, self.beta = alpha, beta

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self._tree = SumTree(self._tree.size)
        self._highest = 1.0

    def add(self, *args: Any, **kwargs: Any) -> None:
        """Store one step of every environment; see SequenceReplayBuffer."""
        super().add(*args, **kwargs)
        every_env = np.arange(self.n_envs)
        # The step just stored is one slot before the newest, in the same episode.
        steps = self._written - 2
        slots = steps % self.buffer_size
        since_start = steps - self._episode_first[every_env, slots]
        begins = np.flatnonzero(since_start % max(self.sequence_length // 2, 1) == 0)
        self._tree.set(begins * self.buffer_size + slots[begins], self._highest**self.alpha)

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> SequenceSamples:  # type: ignore[override]
        """Draw windows by priority; `update_priorities` takes their ``indices``.

        :param batch_size: B, how many windows
        :param env: normalises observations and rewards where given
        :return: windows of sequence_length + lookahead states, with weights
        :raises ValueError: if no step is stored yet
        """
        envs, steps, weights, _ = self.draw(batch_size)
        return self._windows(envs, steps, steps, env, weights)

    def draw(self, batch_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Draw steps by priority.

        :return: their environments and absolute numbers, importance weights (float32) and indices of
            `update_priorities`, (B,) each
        :raises ValueError: if no step is stored yet
        """
        self._require_steps()
        leaves = self._tree.draw(batch_size)
        envs, slots = np.divmod(leaves, self.buffer_size)
        # Absolute numbers: the newest slot of each environment's ring is number written - 1.
        newest = self._written[envs] - 1
        steps = newest - (newest - slots) % self.buffer_size
        # With N the same for all of a batch, it cancels out against the heaviest.
        weights = self._tree.weights(leaves) ** -self.beta
        return envs, steps, (weights / weights.max()).astype(np.float32), leaves

    def update_priorities(self, indices: np.ndarray, priorities: np.ndarray) -> None:
        """Give windows new priorities.

        :param indices: (B,) of the windows, as sampled
        :param priorities: (B,), not negative; 0 is lifted a little, so that every window is drawn again some time
        """
        lifted = np.maximum(priorities, 1e-6)
        self._highest = max(self._highest, float(lifted.max()))
        self._tree.set(indices, lifted**self.alpha)

    def contents(self) -> dict[str, np.ndarray]:
        """Everything stored, as named arrays, with the priorities."""
        weights = self._tree.weights(np.arange(self._tree.size))
        return {**super().contents(), "priorities": weights, "highest_priority": np.array(self._highest)}

    def restore(self, contents: dict[str, np.ndarray]) -> None:
        """Store what another buffer of the same size held.

        :param contents: of `contents`
        :raises ValueError: when it does not fit this buffer
        """
        rest = dict(contents)
        weights, highest = rest.pop("priorities", None), rest.pop("highest_priority", None)
        if weights is None or highest is None or len(weights) != self._tree.size:
            raise ValueError(f"The stored replay buffer has no priorities of {self._tree.size} slots.")
        super().restore(rest)
        self._tree.set(np.arange(self._tree.size), weights)
        self._highest = float(highest)

    def _append(
        self, envs: np.ndarray, obs: np.ndarray | dict[str, np.ndarray], states: np.ndarray | None = None
    ) -> None:
        super()._append(envs, obs, states)
        self._tree.set(envs * self.buffer_size + (self._written[envs] - 1) % self.buffer_size, 0.0)
