"""The replay buffer of an agent: made by its arguments, and refused where it does not fit them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sb3_permakey.common.prioritized_buffer import PrioritizedSequenceReplayBuffer
from sb3_permakey.common.sequence_buffer import SequenceReplayBuffer

if TYPE_CHECKING:
    from sb3_permakey.common.recurrent_q_learning import RecurrentQLearning


def make_buffer(agent: RecurrentQLearning, lookahead: int) -> SequenceReplayBuffer:
    """A replay buffer by an agent's arguments, of which replay_buffer_class may be set.

    :param agent: with all its arguments
    :param lookahead: largest n of its targets
    :raises ValueError: if an argument is out of its range, or observations do not fit where they shall be kept
    """
    needed = agent.needed_buffer()
    agent.replay_buffer_class = agent.replay_buffer_class or needed
    if not issubclass(agent.replay_buffer_class, needed):
        raise ValueError(
            f"{type(agent).__name__} needs a replay_buffer_class that is a {needed.__name__}, "
            f"got {agent.replay_buffer_class.__name__}."
        )
    priorities: dict[str, Any] = {}
    if agent.prioritized_replay:
        priorities = {"alpha": agent.priority_alpha, "beta": agent.priority_beta}
    smallest = agent.n_envs * (agent.sequence_length + lookahead)
    buffer = agent.replay_buffer_class(
        # An agent that is loaded to play may come with buffer_size=1.
        max(agent.buffer_size, smallest) if agent._loads else agent.buffer_size,
        agent.observation_space,
        agent.action_space,
        device=agent.device,
        n_envs=agent.n_envs,
        optimize_memory_usage=agent.optimize_memory_usage,
        sequence_length=agent.sequence_length,
        lookahead=lookahead,
        burn_in=agent.burn_in,
        **priorities,
        **agent.replay_buffer_kwargs,
    )
    assert isinstance(buffer, SequenceReplayBuffer)
    place_observations(buffer, agent)
    return buffer


def place_observations(buffer: SequenceReplayBuffer, agent: RecurrentQLearning) -> None:
    """Keep a replay buffer's observations where the agent says.

    :raises ValueError: if that is no such place, or they do not fit there
    """
    normalizer = agent.get_vec_normalize_env()
    buffer.keep_observations(agent.replay_device, normalized=normalizer is not None and normalizer.norm_obs)


def misfit(buffer: Any, agent: RecurrentQLearning) -> str:
    """What keeps an agent from learning from a replay buffer; "" if nothing does.

    :param buffer: the replay buffer
    :param agent: with all its arguments, its network and its replay_buffer_class
    """
    if not isinstance(buffer, SequenceReplayBuffer):
        return f"it is a {type(buffer).__name__}, not a SequenceReplayBuffer"
    if buffer.n_envs != agent.n_envs:
        return f"it is for {buffer.n_envs} environments, not {agent.n_envs}"
    for name in ("observation_space", "action_space"):
        if getattr(buffer, name) != getattr(agent, name):
            return f"its {name} is {getattr(buffer, name)}, not {getattr(agent, name)}"
    needed = agent.needed_buffer()
    if not isinstance(buffer, needed):
        return f"it is a {type(buffer).__name__}, needed is a {needed.__name__}"
    assert agent.replay_buffer_class is not None
    draws_by_priority = issubclass(agent.replay_buffer_class, PrioritizedSequenceReplayBuffer)
    if isinstance(buffer, PrioritizedSequenceReplayBuffer) and not draws_by_priority:
        return "it has priorities, and the agent draws uniformly (prioritized_replay=False)"
    if agent.recurrent_state == "stored" and buffer.state_shape != agent.q_net.rnn.state_shape:
        held = "it has no recurrent states" if buffer.state_shape is None else f"its states are {buffer.state_shape}"
        return f'{held}, needed are {agent.q_net.rnn.state_shape} (recurrent_state="stored")'
    window = agent.sequence_length + agent.n_steps
    if buffer.buffer_size < window:
        return f"it has {buffer.buffer_size} places an environment, a window needs {window} (sequence_length + n_steps)"
    return ""
