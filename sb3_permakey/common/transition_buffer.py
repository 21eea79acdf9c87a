"""Prioritized replay of single transitions, for agents without a memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.vec_env import VecNormalize

from sb3_permakey.common.prioritized_buffer import PrioritizedSequenceReplayBuffer


class Transitions(NamedTuple):
    """A batch of B transitions over n steps, or fewer where the episode or what is stored ends before.

    :param observations: (B, *observation shape), or a dict of these
    :param actions: (B,) int64
    :param returns: (B,) float32, sum_k gamma^k r_{t+k} over those steps
    :param discounts: (B,) float32, gamma to the power of their number, 0 where the episode truly ended
    :param next_observations: the states after them
    :param mask: (1, B) bool, all true, as for windows of one step
    :param weights: (B,) float32, importance of each transition in the loss
    :param indices: (B,) int64, by which the buffer knows them again
    """

    observations: PyTorchObs
    actions: torch.Tensor
    returns: torch.Tensor
    discounts: torch.Tensor
    next_observations: PyTorchObs
    mask: torch.Tensor
    weights: torch.Tensor
    indices: np.ndarray


class PrioritizedReplayBuffer(PrioritizedSequenceReplayBuffer):
    """Replay of n-step transitions by priority (Schaul et al. 2016), each observation stored once.

    n and the discount are chosen when a batch is drawn, so that both may change while an agent learns.

    :param arguments: those of PrioritizedSequenceReplayBuffer, by place
    :param alpha: exponent of the priorities; 0 draws uniformly
    :param beta: exponent of the importance weights; 0 for none
    :param sequence_length: 1, unless windows are wanted too
    :param kwargs: its other arguments by name; ``lookahead`` is the largest n
    :raises ValueError: if an argument is out of its range
    """

    def __init__(
        self, *arguments: Any, alpha: float = 0.5, beta: float = 0.5, sequence_length: int = 1, **kwargs: Any
    ) -> None:
        super().__init__(*arguments, alpha=alpha, beta=beta, sequence_length=sequence_length, **kwargs)

    def sample_transitions(
        self, batch_size: int, n_steps: int, gamma: float, env: VecNormalize | None = None
    ) -> Transitions:
        """Draw transitions by priority; `update_priorities` takes their ``indices``.

        :param batch_size: B
        :param n_steps: n, at least 1
        :param gamma: discount factor
        :param env: normalises observations and rewards where given
        :raises ValueError: if no step is stored yet
        """
        envs, steps, weights, indices = self.draw(batch_size)
        lasts = np.minimum(self._episode_last[envs, steps % self.buffer_size], self._written[envs] - 1)
        # At least 1, since something was done in each state drawn.
        counts = np.minimum(n_steps, lasts - steps)
        offsets = np.arange(n_steps)[:, None]
        rewards = self.rewards[envs, (steps + offsets) % self.buffer_size]
        rewards = np.where(offsets < counts, self._normalize_reward(rewards, env), 0.0)
        ends = steps + counts
        terminated = self._terminated[envs, (ends - 1) % self.buffer_size]
        discounts = np.where(terminated, 0.0, gamma**counts)
        both = self._observations_at(envs, np.stack([steps, ends]) % self.buffer_size, env)
        if isinstance(both, dict):
            observations: PyTorchObs = {key: values[0] for key, values in both.items()}
            next_observations: PyTorchObs = {key: values[1] for key, values in both.items()}
        else:
            observations, next_observations = both[0], both[1]
        return Transitions(
            observations,
            self._to_device(self.actions[envs, steps % self.buffer_size]),
            self._to_device((gamma ** np.arange(n_steps) @ rewards).astype(np.float32)),
            self._to_device(discounts.astype(np.float32)),
            next_observations,
            torch.ones(1, batch_size, dtype=torch.bool, device=self.device),
            weights,
            indices,
        )
