"""What the recurrent agents' arguments may be, and what is said where they mean something else than in SB3's DQN."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit

if TYPE_CHECKING:
    from sb3_permakey.common.recurrent_q_learning import RecurrentQLearning

TargetUpdateInterval = int | tuple[int, str]
"""Environment steps, as in DQN, or ``(number, "update")`` for gradient updates."""

FORMAT = 2
"""What a saved agent's arguments mean. 1: target_update_interval counted gradient updates."""


def check_arguments(agent: RecurrentQLearning) -> None:
    """Refuse arguments out of their range, and warn of a target network that hardly follows.

    :param agent: whose train_freq is a TrainFreq already
    :raises ValueError: naming the argument, what it may be and what came
    """
    if getattr(agent.action_space, "start", 0) != 0:
        raise ValueError(f"{type(agent).__name__} needs actions counted from 0, got {agent.action_space}.")
    at_least = {"buffer_size": 1, "learning_starts": 0, "batch_size": 1, "gradient_steps": -1}
    for name, least in at_least.items():
        if getattr(agent, name) < least:
            raise ValueError(f"{name} must be at least {least}, got {getattr(agent, name)}.")
    for name in ("tau", "gamma", "exploration_initial_eps", "exploration_final_eps", "priority_eta"):
        if not 0 <= getattr(agent, name) <= 1:
            raise ValueError(f"{name} must be from 0 to 1, got {getattr(agent, name)}.")
    for name in ("exploration_fraction", "max_grad_norm"):
        if getattr(agent, name) <= 0:
            raise ValueError(f"{name} must be above 0, got {getattr(agent, name)}.")
    assert isinstance(agent.train_freq, TrainFreq)
    if agent.train_freq.frequency < 1:
        raise ValueError(f"train_freq must be at least 1, got {agent.train_freq.frequency}.")
    if agent.recurrent_state not in ("zero", "stored"):
        raise ValueError(f'recurrent_state must be "zero" or "stored", got {agent.recurrent_state!r}.')
    own = {"sequence_length", "burn_in", "lookahead", "n_steps", "gamma", "alpha", "beta"} & set(
        agent.replay_buffer_kwargs
    )
    if own:
        raise ValueError(
            f"replay_buffer_kwargs must not hold {sorted(own)}: give the agent its sequence_length, burn_in, n_steps, "
            "gamma, priority_alpha and priority_beta."
        )
    updates = updates_between_targets(agent)
    if updates > 1 and 0 < agent.tau < 1:
        warnings.warn(
            f"target_update_interval={agent.target_update_interval} with tau={agent.tau}: the target network moves "
            f"{agent.tau:.1%} of the way, and only once in {updates} updates. DQN's default is tau=1.0 (a copy), "
            f"{type(agent).__name__}'s a small tau with target_update_interval=1.",
            stacklevel=4,
        )


def updates_between_targets(agent: RecurrentQLearning) -> int:
    """Gradient updates from one update of the target network to the next, at least 1.

    :param agent: whose train_freq is a TrainFreq already
    :raises ValueError: if its target_update_interval is neither steps nor ``(number, "update")``, is below 1, or counts
        steps where the number of updates for these is not known
    """
    interval: Any = agent.target_update_interval
    in_updates = isinstance(interval, Sequence) and len(interval) == 2 and interval[1] == "update"
    number = interval[0] if in_updates else interval
    if not isinstance(number, Integral):
        raise ValueError(
            'target_update_interval must be a number of environment steps, or (number, "update") for gradient updates, '
            f"got {interval!r}."
        )
    if number < 1:
        raise ValueError(f"target_update_interval must be at least 1, got {number}.")
    number = int(number)
    if in_updates or number == 1:
        return number
    if agent.gradient_steps < 0:
        # As many updates as steps.
        return number
    assert isinstance(agent.train_freq, TrainFreq)
    if agent.train_freq.unit is TrainFrequencyUnit.EPISODE:
        raise ValueError(
            "target_update_interval cannot count environment steps where train_freq counts episodes and gradient_steps "
            f'is not -1: give it as (number, "update"), got {interval}.'
        )
    return max(round(number * agent.gradient_steps / (agent.train_freq.frequency * agent.n_envs)), 1)


def policy_named(name: str, agent: str, aliases: Mapping[str, type[BasePolicy]]) -> type[BasePolicy]:
    """The policy of that name.

    :param name: for instance "MlpLstmPolicy"
    :param agent: the agent's name
    :param aliases: its policies
    :raises ValueError: if it has none of that name; says which takes the place of SB3's
    """
    if name in aliases:
        return aliases[name]
    alike = [known for known in aliases if known.replace("Lstm", "") == name.replace("Lstm", "")]
    remedy = f'use "{alike[0]}"' if alike else f"known are {', '.join(aliases)}"
    raise ValueError(f"Policy {name} unknown to {agent}: {remedy}.")
