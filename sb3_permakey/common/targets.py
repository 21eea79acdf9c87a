"""The arithmetic of recurrent Q-learning as pure functions, time-major: (time, batch, ...)."""

import torch


def n_step_targets(
    rewards: torch.Tensor,
    discounts: torch.Tensor,
    bootstrap_values: torch.Tensor,
    acted: torch.Tensor,
    n_steps: int,
) -> torch.Tensor:
    """n-step Q-learning targets of the first L of T = L + n states of a window.

    y_t = sum_{k<n} (prod_{j<k} d_{t+j}) r_{t+k} + (prod_{j<n} d_{t+j}) v_{t+n}

    A true end (d = 0) cuts the sum. A state in which nothing was done (the last one before a time limit, or the newest
    one stored) ends it early, with that state's value as the bootstrap. Worked out backwards in n vectorised passes:
    G^0_t = v_t, and G^j_t = r_t + d_t G^{j-1}_{t+1} where acted, else v_t; y = G^n. Sutton & Barto 2018, section 7.1.

    :param rewards: (L + n, B) float, r_t follows the action taken at t
    :param discounts: (L + n, B) float, d_t: gamma while the episode goes on, 0 where it terminates
    :param bootstrap_values: (L + n, B) float, v_t, the value of the state at t
    :param acted: (L + n, B) bool, whether an action was taken at t; rewards and discounts count only there
    :param n_steps: n, how many rewards are summed before the bootstrap
    :return: (L, B) float, y_t
    :raises ValueError: if the shapes differ or leave no state to give a target for
    """
    shapes = [tuple(tensor.shape) for tensor in (rewards, discounts, bootstrap_values, acted)]
    if len(set(shapes)) > 1:
        raise ValueError(f"rewards, discounts, bootstrap_values and acted must have one shape, got {shapes}.")
    if not 1 <= n_steps < len(rewards):
        raise ValueError(f"n_steps must be at least 1 and less than the {len(rewards)} states given, got {n_steps}.")
    returns = bootstrap_values
    for rows in range(len(rewards) - 1, len(rewards) - 1 - n_steps, -1):
        returns = torch.where(
            acted[:rows], rewards[:rows] + discounts[:rows] * returns[1 : rows + 1], bootstrap_values[:rows]
        )
    return returns


def double_q_values(online_q_values: torch.Tensor, target_q_values: torch.Tensor) -> torch.Tensor:
    """State values by double Q-learning: the online network chooses the action, the target network values it.

    v = Q_target(s, argmax_a Q_online(s, a)), van Hasselt et al. 2016, equation 4.

    :param online_q_values: (..., actions)
    :param target_q_values: (..., actions)
    :return: (...)
    """
    best_actions = online_q_values.argmax(dim=-1, keepdim=True)
    return target_q_values.gather(-1, best_actions).squeeze(-1)


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of the values where the mask is true.

    :param values: any shape, finite also where they do not count
    :param mask: bool, the same shape, true somewhere
    :return: scalar
    """
    return (values * mask).sum() / mask.sum()
