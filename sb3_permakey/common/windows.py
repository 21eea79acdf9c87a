"""Windows of consecutive steps, as a replay buffer gives them and networks take them."""

from typing import NamedTuple

import numpy as np
import torch


class BurnIn(NamedTuple):
    """What comes before the windows of a batch: up to burn_in states of the same episode, padded after the last.

    :param observations: (burn_in, B, *observation shape), or a dict of these
    :param lengths: (B,) int64: how many of them count, 0 where a window begins with its episode
    """

    observations: torch.Tensor | dict[str, torch.Tensor]
    lengths: torch.Tensor


class SequenceSamples(NamedTuple):
    """A batch of windows of T = sequence_length + lookahead states, time-major, padded at an episode's last state.

    :param observations: (T, B, *observation shape), or a dict of these
    :param actions: (T, B) int64
    :param rewards: (T, B) float32, r_t follows the action taken at t
    :param terminated: (T, B) bool, whether the episode truly ended (no time limit) with the step taken at t
    :param acted: (T, B) bool, false where no step was taken: at an episode's last state, which is also the padding
    :param mask: (sequence_length, B) bool, the steps to learn from
    :param burn_in: what comes before; None without burn-in
    :param states: (B, *state shape) float32, the recurrent state, as acting had it, before the burn-in's first
        observation, or the window's where there is none; None where states are not stored
    :param weights: (B,) float32, importance of each window in the loss
    :param indices: (B,) int64, by which a prioritized buffer knows the windows again
    """

    observations: torch.Tensor | dict[str, torch.Tensor]
    actions: torch.Tensor
    rewards: torch.Tensor
    terminated: torch.Tensor
    acted: torch.Tensor
    mask: torch.Tensor
    burn_in: BurnIn | None
    states: torch.Tensor | None
    weights: torch.Tensor
    indices: np.ndarray


class StepErrors(NamedTuple):
    """What an update learns from, for each step of each window (L, B).

    :param losses: with gradient
    :param td_errors: target minus value, without
    :param q_values: of the actions taken, without
    """

    losses: torch.Tensor
    td_errors: torch.Tensor
    q_values: torch.Tensor


class Learned(NamedTuple):
    """What an update was like.

    :param loss: scalar
    :param grad_norm: scalar, the gradient's norm before it was clipped
    :param td_errors: (L, B)
    :param q_values: (L, B)
    :param priorities: (B,), by which the windows are drawn again; None where all are drawn alike
    """

    loss: torch.Tensor
    grad_norm: torch.Tensor
    td_errors: torch.Tensor
    q_values: torch.Tensor
    priorities: torch.Tensor | None
