"""A step of the optimizer with the gradient clipped, in few operations."""

from __future__ import annotations

from collections.abc import Sequence

import torch


@torch.no_grad()
def clipped_step(optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor], most: float) -> torch.Tensor:
    """What ``clip_grad_norm_(parameters, most)`` and ``optimizer.step()`` do.

    The fused kernel of Adam divides gradients by a scale where it gets one, for mixed precision. Here it is what
    clipping divides by, so that clipping takes no pass over the gradients of its own.

    :param optimizer: of these parameters
    :param parameters: those whose gradients count; without a gradient they are passed over
    :param most: norm to which the gradient is clipped
    :return: the gradient's norm before, a scalar on the device
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        optimizer.step()
        return torch.zeros(())
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    # 1e-6 as torch's own function has it.
    scale = ((norm + 1e-6) / most).clamp_(min=1.0)
    if _is_plain_adam(optimizer):
        _adam_step(optimizer, scale)
    else:
        torch._foreach_div_(gradients, scale)
        optimizer.step()
    return norm


def _is_plain_adam(optimizer: torch.optim.Optimizer) -> bool:
    """Whether its step is one fused call a group: torch's Adam or AdamW that has made a step, and nothing around it."""
    if type(optimizer) not in (torch.optim.Adam, torch.optim.AdamW) or "step" in vars(optimizer):
        return False
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        return False
    return all(
        group["fused"]
        and not (group["amsgrad"] or group["capturable"] or group["differentiable"])
        and not isinstance(group["lr"], torch.Tensor)
        and all(parameter.grad is not None and optimizer.state.get(parameter) for parameter in group["params"])
        for group in optimizer.param_groups
    )


def _adam_step(optimizer: torch.optim.Optimizer, scale: torch.Tensor) -> None:
    """What the optimizer's ``step()`` does once it has found out what to do, which takes longer on small networks."""
    for group in optimizer.param_groups:
        states = [optimizer.state[parameter] for parameter in group["params"]]
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1)
        decoupled = isinstance(optimizer, torch.optim.AdamW) or group.get("decoupled_weight_decay", False)
        (torch._fused_adamw_ if decoupled else torch._fused_adam_)(
            group["params"],
            [parameter.grad for parameter in group["params"]],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            steps,
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=group["maximize"],
            grad_scale=scale,
        )
