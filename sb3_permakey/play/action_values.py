"""The values by which a saved agent chose."""

from __future__ import annotations

from typing import Any

import numpy as np
import sb3_contrib
import stable_baselines3
import torch

from sb3_permakey.common.recurrent_policies import RecurrentQPolicy
from sb3_permakey.play.saved_agents import FrameAgent


def action_values(player: FrameAgent) -> np.ndarray | None:
    """Expected values (B, actions) by which an agent chose its last actions.

    Of this package's agents, SB3's DQN and sb3-contrib's QRDQN; others have none, or have not acted yet: None.
    """
    if player.remembered is None:
        return None
    agent, (state, episode_starts) = player.agent, player.remembered
    policy: Any = agent.policy
    policy.set_training_mode(False)
    observations, _ = policy.obs_to_tensor(player.observed)
    with torch.no_grad():
        if isinstance(policy, RecurrentQPolicy):
            values = _remembering_values(policy, observations, state, episode_starts)
        elif isinstance(agent, stable_baselines3.DQN):
            values = agent.q_net(observations)
        elif isinstance(agent, sb3_contrib.QRDQN):
            values = agent.quantile_net(observations).mean(dim=1)
        else:
            return None
    return values.cpu().numpy()


def _remembering_values(
    policy: RecurrentQPolicy, observations: Any, state: tuple[np.ndarray, ...] | None, episode_starts: np.ndarray
) -> torch.Tensor:
    """Values (B, actions) after what is remembered; None: the beginning of episodes."""
    net = policy.acting_net
    if state is None:
        states = net.initial_states(len(episode_starts))
    else:
        states = tuple(torch.as_tensor(part, dtype=torch.float32, device=policy.device) for part in state)
    starts = torch.as_tensor(episode_starts, dtype=torch.bool, device=policy.device)
    outputs, _ = net(observations, states, starts)
    return net.values.expected(outputs)
