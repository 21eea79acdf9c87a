"""What the recurrent agents' arguments may be, and what is said where they mean something else than in SB3's DQN."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit

from sb3_permakey.common.recurrent_policies import RecurrentQPolicy
from sb3_permakey.settings import require_at_least, require_choice, require_positive, require_range

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
    if not (isinstance(agent.policy_class, type) and issubclass(agent.policy_class, RecurrentQPolicy)):
        raise ValueError(f"{type(agent).__name__} needs a recurrent policy, got {agent.policy_class.__name__}.")
    owner = agent.policy_class.agent
    if owner and owner not in (kind.__name__ for kind in type(agent).__mro__):
        policy, name = agent.policy_class.__name__, type(agent).__name__
        raise ValueError(f"{policy} of {owner} is no policy for {name}: use {owner}.")
    require_at_least(1, buffer_size=agent.buffer_size, batch_size=agent.batch_size)
    require_at_least(0, learning_starts=agent.learning_starts)
    require_at_least(-1, gradient_steps=agent.gradient_steps)
    assert isinstance(agent.train_freq, TrainFreq)
    require_at_least(1, train_freq=agent.train_freq.frequency)
    require_range(0, 1, tau=agent.tau, gamma=agent.gamma, priority_eta=agent.priority_eta)
    eps = {name: getattr(agent, name) for name in ("exploration_initial_eps", "exploration_final_eps")}
    require_range(0, 1, **eps)
    require_range(0, math.inf, max_grad_norm=agent.max_grad_norm)
    require_positive(exploration_fraction=agent.exploration_fraction)
    require_choice(("zero", "stored"), recurrent_state=agent.recurrent_state)
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


def require_known_observations(space: spaces.Space, name: str = "observations") -> None:
    """Raise ValueError unless the networks can take such observations.

    :param space: an observation space; those of the old gym are left to SB3
    :param name: what it is called in the message
    """
    if isinstance(space, spaces.Dict):
        for key, part in space.items():
            require_known_observations(part, f"observations {key!r}")
    elif isinstance(space, spaces.Discrete | spaces.MultiDiscrete) and np.any(space.start):
        raise ValueError(f"The {name} must be counted from 0, got {space}: gymnasium's TransformObservation can do it.")
    elif isinstance(space, spaces.Space):
        known = isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)
        no_axis = isinstance(space, spaces.Box) and not space.shape
        rows = isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim > 1
        if not known or no_axis or rows:
            raise ValueError(
                f"The {name} are {space}, which no policy can read: gymnasium's FlattenObservation makes arrays of "
                "many spaces, and FilterObservation leaves parts of a Dict out."
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
