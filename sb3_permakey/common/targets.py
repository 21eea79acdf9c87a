"""The arithmetic of recurrent Q-learning as pure functions, time-major: (time, batch, ...)."""

from itertools import pairwise

import torch
from torch import nn

RESCALING_SLOPE = 1e-3
"""eps of the value rescaling (Kapturowski et al. 2019, table 2)."""


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
    :param bootstrap_values: (L + n, B) float, v_t, the value of the state at t; or (L + n, B, N), its N quantiles
    :param acted: (L + n, B) bool, whether an action was taken at t; rewards and discounts count only there
    :param n_steps: n, how many rewards are summed before the bootstrap
    :return: (L, B) float, y_t; or (L, B, N), its quantiles
    :raises ValueError: if the shapes differ or leave no state to give a target for
    """
    shapes = [tuple(tensor.shape) for tensor in (rewards, discounts, bootstrap_values, acted)]
    if len({shape[:2] for shape in shapes}) > 1:
        raise ValueError(f"rewards, discounts, bootstrap_values and acted must have one shape, got {shapes}.")
    if not 1 <= n_steps < len(rewards):
        raise ValueError(f"n_steps must be at least 1 and less than the {len(rewards)} states given, got {n_steps}.")
    if bootstrap_values.dim() == 3:
        rewards, discounts, acted = rewards.unsqueeze(-1), discounts.unsqueeze(-1), acted.unsqueeze(-1)
    returns = bootstrap_values
    for rows in range(len(rewards) - 1, len(rewards) - 1 - n_steps, -1):
        returns = torch.where(
            acted[:rows], rewards[:rows] + discounts[:rows] * returns[1 : rows + 1], bootstrap_values[:rows]
        )
    return returns


def bootstrapped(values: torch.Tensor, acted: torch.Tensor, n_steps: int) -> torch.Tensor:
    """Values of the states that `n_step_targets` bootstrap from: n steps later, or earlier where nothing was done.

    :param values: (L + n, B, N)
    :param acted: (L + n, B) bool, whether an action was taken at t
    :param n_steps: n
    :return: (L, B, N)
    """
    length = len(acted) - n_steps
    times = torch.arange(length, device=acted.device).unsqueeze(1).expand(length, acted.shape[1])
    goes_on = torch.ones_like(acted[:length])
    for step in range(n_steps):
        goes_on = goes_on & acted[step : step + length]
        times = times + goes_on
    return values.gather(0, times.unsqueeze(-1).expand(*times.shape, values.shape[-1]))


def values_of(actions: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Values of the actions given.

    :param actions: (...) int64
    :param values: (..., actions, N)
    :return: (..., N)
    """
    indices = actions[..., None, None].expand(*actions.shape, 1, values.shape[-1])
    return values.gather(-2, indices).squeeze(-2)


def rescale_values(values: torch.Tensor, slope: float = RESCALING_SLOPE) -> torch.Tensor:
    """h(x) = sign(x) (sqrt(|x| + 1) - 1) + eps x, which keeps large returns small (Pohlen et al. 2018, section 3.2).

    :param values: any shape
    :param slope: eps, which keeps the inverse Lipschitz continuous
    :return: the same shape
    """
    # sqrt(y + 1) - 1 = y / (sqrt(y + 1) + 1), which takes no difference of nearly equal numbers.
    return values / ((values.abs() + 1).sqrt() + 1) + slope * values


def unscale_values(values: torch.Tensor, slope: float = RESCALING_SLOPE) -> torch.Tensor:
    """Inverse of `rescale_values`: h^-1(x) = sign(x) (((sqrt(1 + 4 eps (|x| + 1 + eps)) - 1) / (2 eps))^2 - 1).

    :param values: any shape
    :param slope: the slope that was used
    :return: the same shape
    """
    # The same without differences of nearly equal numbers, so that float32 will do (Apple's GPUs have no float64): with
    # s the inner root, which is 1 + 2 eps at 0, excess is ((s - 1) / (2 eps)) - 1, and h^-1 = excess (excess + 2).
    sizes = values.abs()
    inner = (1 + 4 * slope * (sizes + 1 + slope)).sqrt()
    excess = 2 * sizes * (1 - 2 * slope / (inner + 1 + 2 * slope)) / (inner + 1)
    return values.sign() * excess * (excess + 2)


def quantile_huber_loss(quantiles: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Quantile Huber loss with kappa = 1 (Dabney et al. 2018, equations 9 and 10).

    Summed over the predicted quantiles, at the midpoints (i - 1/2) / N, and averaged over the targets' samples. Not
    from all N x M pairs: with the targets sorted, those that lie more than 1 below a quantile, up to 1 below, up to 1
    above and further above are ranges, whose sums come from running sums. That costs O((N + M) log M), and the gradient
    with respect to a quantile comes from the same sums.

    A range's sum is the difference of two running sums, which loses digits where these are large. So where the loss is
    quadratic, and for the gradient, sums run over what targets exceed whole numbers by: with the ranges cut at whole
    numbers too, a difference of quantile and target is one of numbers below 2. No float64 is needed, which Apple's GPUs
    do not have.

    :param quantiles: (..., N), predicted
    :param targets: (..., M), samples of the target distribution, through which no gradient flows
    :return: (...)
    """
    count, samples = quantiles.shape[-1], targets.shape[-1]
    ordered = targets.detach().sort(dim=-1).values
    centre = ordered[..., samples // 2, None]
    ordered, predicted = ordered - centre, quantiles.detach() - centre
    midpoints = (torch.arange(count, device=quantiles.device, dtype=quantiles.dtype) + 0.5) / count
    parts = ordered - ordered.floor()
    running = nn.functional.pad(torch.stack([ordered, parts, parts.square()]).cumsum(dim=-1), (1, 0))

    whole = predicted.floor()
    ends = [torch.searchsorted(ordered, end) for end in (predicted - 1, whole, predicted, whole + 1, predicted + 1)]
    ends = [torch.zeros_like(ends[0]), *ends, torch.full_like(ends[0], samples)]
    numbers = [end - start for start, end in pairwise(ends)]
    totals, of_parts, of_squares = (
        [end - start for start, end in pairwise([sums.gather(-1, end) for end in ends])] for sums in running
    )

    # Quantile minus target, and half its square, summed over the four ranges from 1 below to 1 above the quantile.
    gaps, losses = [], []
    for index, floor in ((1, whole - 1), (2, whole), (3, whole), (4, whole + 1)):
        number, part, over = numbers[index], of_parts[index], predicted - floor
        gaps.append(number * over - part)
        losses.append((number * over.square() - 2 * over * part + of_squares[index]) / 2)
    below = numbers[0] * (predicted - 0.5) - totals[0] + losses[0] + losses[1]
    above = losses[2] + losses[3] + totals[5] - numbers[5] * (predicted + 0.5)
    slopes_below = numbers[0] + gaps[0] + gaps[1]
    slopes_above = gaps[2] + gaps[3] - numbers[5]
    slopes = ((1 - midpoints) * slopes_below + midpoints * slopes_above) / samples
    values = ((1 - midpoints) * below + midpoints * above) / samples
    # The loss's value, with the gradient just worked out.
    return values.sum(dim=-1) + (slopes * (quantiles - quantiles.detach())).sum(dim=-1)


def sequence_priorities(td_errors: torch.Tensor, mask: torch.Tensor | None, eta: float) -> torch.Tensor:
    """Priority of each window: eta max_t |delta_t| + (1 - eta) mean_t |delta_t| (Kapturowski et al. 2019, section 2.3).

    :param td_errors: (L, B)
    :param mask: (L, B) bool, the steps that count, at least one in each window; None for windows of one step
    :param eta: share of the maximum
    :return: (B,)
    """
    if mask is None:
        return td_errors[0].abs()
    sizes = td_errors.abs() * mask
    return eta * sizes.amax(dim=0) + (1 - eta) * sizes.sum(dim=0) / mask.sum(dim=0)


def masked_mean(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Mean of the values where the mask is true.

    :param values: any shape, finite also where they do not count
    :param mask: bool, the same shape, true somewhere; None for everywhere
    :return: scalar
    """
    if mask is None:
        return values.mean()
    return (values * mask).sum() / mask.sum()
