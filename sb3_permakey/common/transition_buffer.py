"""Prioritized replay of single transitions, for agents without a memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.vec_env import VecNormalize

from sb3_permakey.common.prioritized_buffer import PrioritizedSequenceReplayBuffer
from sb3_permakey.keypoints.transfer import to_device


class Transitions(NamedTuple):
    """A batch of B transitions over n steps, or fewer where the episode or what is stored ends before.

    :param both: (2, B, *observation shape), or a dict of these: the states acted in, and those after the steps
    :param actions: (B,) int64
    :param returns: (B,) float32, sum_k gamma^k r_{t+k} over those steps
    :param discounts: (B,) float32, gamma to the power of their number, 0 where the episode truly ended
    :param weights: (B,) float32, importance of each transition in the loss
    :param indices: (B,) int64, by which the buffer knows them again
    """

    both: PyTorchObs
    actions: torch.Tensor
    returns: torch.Tensor
    discounts: torch.Tensor
    weights: torch.Tensor
    indices: np.ndarray

    @property
    def mask(self) -> None:
        """Of windows the steps to learn from: here every one."""
        return None

    @property
    def observations(self) -> PyTorchObs:
        """The states acted in, (B, *observation shape), or a dict of these."""
        return self._part(0)

    @property
    def next_observations(self) -> PyTorchObs:
        """The states after the steps."""
        return self._part(1)

    def _part(self, which: int) -> PyTorchObs:
        if isinstance(self.both, dict):
            return {key: values[which] for key, values in self.both.items()}
        return self.both[which]


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
        first = envs * self.buffer_size
        slots = first + steps % self.buffer_size
        lasts = np.minimum(self._episode_last.reshape(-1)[slots], self._written[envs] - 1)
        # At least 1, since something was done in each state drawn.
        counts = np.minimum(n_steps, lasts - steps)
        offsets = np.arange(n_steps)[:, None]
        rewards = self.rewards.reshape(-1)[first + (steps + offsets) % self.buffer_size]
        rewards = np.where(offsets < counts, self._normalize_reward(rewards, env), 0.0)
        ends = steps + counts
        terminated = self._terminated.reshape(-1)[first + (ends - 1) % self.buffer_size]
        discounts = np.where(terminated, 0.0, gamma**counts)
        moved = to_device(
            {
                **self._observations.asked(np.stack([slots, first + ends % self.buffer_size]), env),
                "actions": self.actions.reshape(-1)[slots],
                "returns": (gamma ** np.arange(n_steps) @ rewards).astype(np.float32),
                "discounts": discounts.astype(np.float32),
                "weights": weights,
            },
            self.device,
        )
        return Transitions(
            both=self._observations.given(moved),
            **{name: moved[name] for name in ("actions", "returns", "discounts", "weights")},
            indices=indices,
        )
