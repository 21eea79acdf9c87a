"""A replay buffer that stores each observation once and gives back windows of consecutive steps."""

import warnings
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize

from sb3_permakey.common.kept_observations import (
    HostObservations,
    KeptObservations,
    empty_rings,
    in_own_shapes,
    kept_observations,
)
from sb3_permakey.common.windows import BurnIn, SequenceSamples
from sb3_permakey.keypoints.transfer import to_device

# A slot's last slot of its episode while that episode still runs: later than any slot.
_RUNNING = np.iinfo(np.int64).max
# An environment's running episode when it has none.
_NONE = -1


class SequenceReplayBuffer(ReplayBuffer):
    """Replay of windows for recurrent agents, with the constructor and the hooks of SB3's ``ReplayBuffer``.

    Each environment has a ring of ``buffer_size // n_envs`` slots and its own place in it. A slot holds a state and
    what was done in it; the state in which an episode ends has a slot too, in which nothing was done. Slots are counted
    by absolute numbers that only grow; number i lies in the ring at i modulo its size.

    :param buffer_size: observations stored in all environments together
    :param observation_space: anything SB3 preprocesses; stored in its own dtype (uint8 stays uint8)
    :param action_space: ``Discrete``
    :param device: where the sampled tensors go
    :param n_envs: number of parallel environments
    :param optimize_memory_usage: must be False, each observation is already stored once
    :param handle_timeout_termination: whether a time limit (``TimeLimit.truncated`` in an info) is no true end
    :param sequence_length: steps of a window to learn from
    :param lookahead: states that follow them in a window; the n of n-step targets
    :param burn_in: states before them, which only warm the recurrent state up
    :raises ValueError: if an argument is out of its range, or the ring is too short for one window
    """

    # Of buffers that an older version saved, where episodes begin with zeros.
    _initial_state: np.ndarray | float = 0.0

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
        *,
        sequence_length: int = 8,
        lookahead: int = 3,
        burn_in: int = 0,
    ) -> None:
        # Past ReplayBuffer's own constructor, which would allocate its arrays of observations and next observations.
        super(ReplayBuffer, self).__init__(buffer_size, observation_space, action_space, device, n_envs)
        if optimize_memory_usage:
            raise ValueError(
                "SequenceReplayBuffer takes no optimize_memory_usage=True: each observation is already stored once."
            )
        if not isinstance(action_space, spaces.Discrete):
            raise ValueError(f"SequenceReplayBuffer stores Discrete actions only, got {action_space}.")
        if sequence_length < 1 or lookahead < 1:
            raise ValueError(
                f"sequence_length and n_steps (lookahead) must be at least 1, not {sequence_length} and {lookahead}."
            )
        if burn_in < 0:
            raise ValueError(f"burn_in must not be negative, got {burn_in}.")
        self.buffer_size = buffer_size // n_envs
        if self.buffer_size < sequence_length + lookahead:
            raise ValueError(
                f"buffer_size={buffer_size} leaves {self.buffer_size} observations to each of {n_envs} environments, "
                f"but one window needs {sequence_length + lookahead} (sequence_length + n_steps)."
            )
        self.optimize_memory_usage = False
        self.handle_timeout_termination = handle_timeout_termination
        self.sequence_length = sequence_length
        self.lookahead = lookahead
        self.burn_in = burn_in

        ring = (n_envs, self.buffer_size)
        self._observations: KeptObservations = HostObservations(empty_rings(observation_space, ring))
        self.actions = np.zeros(ring, dtype=np.int64)
        self.rewards = np.zeros(ring, dtype=np.float32)
        self._terminated = np.zeros(ring, dtype=bool)
        self._acted = np.zeros(ring, dtype=bool)
        # Absolute numbers of the first and the last slot of the episode that a slot belongs to.
        self._episode_first = np.zeros(ring, dtype=np.int64)
        self._episode_last = np.zeros(ring, dtype=np.int64)
        # Per environment: slots written so far, and the first slot of the episode that runs now.
        self._written = np.zeros(n_envs, dtype=np.int64)
        self._running_first = np.full(n_envs, _NONE)
        # Recurrent states before each slot's observation; None where they are not stored.
        self._states: np.ndarray | None = None

    def keep_observations(self, replay_device: torch.device | str, normalized: bool = False) -> None:
        """Keep observations, those stored too, in the host's memory or on the device where batches go.

        :param replay_device: "cpu", "auto" or that device, as `kept_observations` takes it
        :param normalized: whether batches will be asked for with a VecNormalize that normalises observations
        :raises ValueError: if it is none of these, or they do not fit there
        """
        arrays, newest = self._observations.arrays(), self._newest_slots
        self._observations = kept_observations(arrays, newest, replay_device, self.device, normalized)

    def store_states(self, initial: np.ndarray) -> None:
        """Keep the recurrent state of every slot; to be called before the first step is stored.

        :param initial: (*state shape), of an environment whose episode begins
        """
        self._initial_state = initial
        self._states = np.zeros((self.n_envs, self.buffer_size, *initial.shape), dtype=np.float32)

    def forget_states(self) -> None:
        """Keep no recurrent states any more."""
        self._states = None

    @property
    def state_shape(self) -> tuple[int, ...] | None:
        """Shape of one environment's recurrent state; None where they are not stored."""
        return None if self._states is None else self._states.shape[2:]

    def size(self) -> int:
        """Steps stored, in all environments together."""
        return int(self._acted.sum())

    def reset(self) -> None:
        """Forget everything."""
        self._acted[:] = False
        self._written[:] = 0
        self._running_first[:] = _NONE

    def add(
        self,
        obs: np.ndarray | dict[str, np.ndarray],
        next_obs: np.ndarray | dict[str, np.ndarray],
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
        next_states: np.ndarray | None = None,
    ) -> None:
        """Store one step of every environment.

        Within an episode ``obs`` is the ``next_obs`` of the call before, and is not stored again. Where it is not, the
        episode is closed, as by a time limit, and another begins: windows have no holes.

        :param obs: (n_envs, *observation shape), the states acted in, or a dict of these
        :param next_obs: the same, the states that followed: an episode's true last state where it ended
        :param action: (n_envs,) or (n_envs, 1)
        :param reward: (n_envs,)
        :param done: (n_envs,), whether the episode ended
        :param infos: per environment; ``TimeLimit.truncated`` tells a time limit from a true end
        :param next_states: (n_envs, *state shape), recurrent states after ``obs`` was seen, where states are stored
        :raises ValueError: if states are stored and none are given, or observations have another shape
        """
        if self._states is not None and next_states is None:
            raise ValueError(f"{type(self).__name__} stores recurrent states: give add() its next_states.")
        self._close_where_others_follow(obs)
        starting = np.flatnonzero(self._running_first == _NONE)
        self._running_first[starting] = self._written[starting]
        self._append(starting, obs)

        every_env = np.arange(self.n_envs)
        slots = (self._written - 1) % self.buffer_size
        done = np.asarray(done, dtype=bool)
        timed_out = np.array([info.get("TimeLimit.truncated", False) for info in infos], dtype=bool)
        self.actions[every_env, slots] = np.reshape(action, self.n_envs)
        self.rewards[every_env, slots] = reward
        self._terminated[every_env, slots] = done & ~timed_out if self.handle_timeout_termination else done
        self._acted[every_env, slots] = True

        self._append(every_env, next_obs, next_states)
        self._close(np.flatnonzero(done))

    def close_episodes(self) -> None:
        """End every running episode at its newest state, as a time limit would.

        To be called when the environments are reset from outside: the next step then begins a new episode.
        """
        self._close(np.flatnonzero(self._running_first != _NONE))

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> SequenceSamples:  # type: ignore[override]
        """Draw windows: a step uniformly from all that are stored, then a place for the window around it.

        A window lies within one episode, and is full whenever that has ``sequence_length`` steps. One that would begin
        before its episode begins with it, so first steps, with the LSTM's true state, come more than half as often as
        others, where a uniform choice of windows would make them ``sequence_length`` times rarer.

        :param batch_size: B, how many windows
        :param env: normalises observations and rewards where given
        :return: windows of sequence_length + lookahead states
        :raises ValueError: if no step is stored yet
        """
        self._require_steps()
        envs, steps = self._draw_slots(batch_size)
        while len(missed := np.flatnonzero(~self._acted[envs, steps % self.buffer_size])):
            envs[missed], steps[missed] = self._draw_slots(len(missed))
        return self._windows(envs, steps, steps - np.random.randint(self.sequence_length, size=batch_size), env)

    def contents(self) -> dict[str, np.ndarray]:
        """Everything stored, as named arrays, from which `restore` makes the same buffer again."""
        filled = int(min(self._written.max(initial=0), self.buffer_size))
        arrays = {name: array[:, :filled] for name, array in self._rings().items()}
        return {
            **arrays,
            "slots": np.array(self.buffer_size),
            "written": self._written,
            "running_first": self._running_first,
        }

    def restore(self, contents: dict[str, np.ndarray]) -> None:
        """Store what another buffer of the same size held.

        :param contents: of `contents`
        :raises ValueError: when it does not fit this buffer
        """
        own = SequenceReplayBuffer.contents(self)
        filled = contents["actions"].shape[1] if "actions" in contents else 0
        shapes = {name: (array.shape[0], filled, *array.shape[2:]) for name, array in self._rings().items()}
        if set(contents) != set(own) or int(contents["slots"]) != self.buffer_size:
            raise ValueError(
                f"The stored replay buffer has {contents.get('slots')} slots of {sorted(contents)}; "
                f"expected are {self.buffer_size} of {sorted(own)}."
            )
        rings = self._rings()
        for name, ring in rings.items():
            if contents[name].shape != shapes[name]:
                raise ValueError(
                    f"The stored replay buffer's {name} are {contents[name].shape}; expected are {shapes[name]}."
                )
            ring[:, :filled] = contents[name]
        self._written[:] = contents["written"]
        self._running_first[:] = contents["running_first"]
        self._observations.put({key: rings[_named(key)] for key in self._observations.arrays()}, self._newest_slots)

    def __getstate__(self) -> dict[str, Any]:
        """As it is pickled: observations as arrays, wherever they are kept."""
        return {**self.__dict__, "_observations": self._observations.arrays()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _observations=HostObservations(state["_observations"]))

    def _rings(self) -> dict[str, np.ndarray]:
        """All arrays with a slot axis, (n_envs, buffer_size, ...), by name."""
        observations = {_named(key): array for key, array in self._observations.arrays().items()}
        states = {} if self._states is None else {"states": self._states}
        return {
            **observations,
            **states,
            "actions": self.actions,
            "rewards": self.rewards,
            "terminated": self._terminated,
            "acted": self._acted,
            "episode_first": self._episode_first,
            "episode_last": self._episode_last,
        }

    @property
    def _newest_slots(self) -> np.ndarray:
        """(n_envs,) slots written last, counted over all environments."""
        return np.arange(self.n_envs) * self.buffer_size + (self._written - 1) % self.buffer_size

    @property
    def _oldest(self) -> np.ndarray:
        """(n_envs,) absolute number of the oldest slot that is not overwritten."""
        return np.maximum(self._written - self.buffer_size, 0)

    def _require_steps(self) -> None:
        if not self._acted.any():
            raise ValueError(f"{type(self).__name__} has nothing to sample: no step is stored yet.")

    def _append(
        self, envs: np.ndarray, obs: np.ndarray | dict[str, np.ndarray], states: np.ndarray | None = None
    ) -> None:
        """Write the next slot of some environments: a state in which nothing is done yet.

        :param envs: (k,) which environments
        :param obs: observations of all environments
        :param states: recurrent states of all environments before they see these; None for an episode's start
        """
        slots = self._written[envs] % self.buffer_size
        parts = {key: part[envs] for key, part in in_own_shapes(obs, self.obs_shape, self.n_envs).items()}
        self._observations.write(envs * self.buffer_size + slots, parts)
        self.actions[envs, slots] = 0
        self.rewards[envs, slots] = 0.0
        self._terminated[envs, slots] = False
        self._acted[envs, slots] = False
        if self._states is not None:
            self._states[envs, slots] = self._initial_state if states is None else states[envs]
        self._episode_first[envs, slots] = self._running_first[envs]
        self._episode_last[envs, slots] = _RUNNING
        self._written[envs] += 1

    def _close_where_others_follow(self, obs: np.ndarray | dict[str, np.ndarray]) -> None:
        """End the running episodes whose newest state these observations of all environments are not."""
        envs = np.flatnonzero(self._running_first != _NONE)
        if not len(envs):
            return
        follows, given = np.ones(len(envs), dtype=bool), in_own_shapes(obs, self.obs_shape, self.n_envs)
        for key, newest in self._observations.newest(self._newest_slots[envs]).items():
            same = newest == given[key][envs].astype(newest.dtype, copy=False)
            if np.issubdtype(newest.dtype, np.floating):
                same |= np.isnan(newest) & np.isnan(given[key][envs])
            follows &= same.reshape(len(envs), -1).all(axis=1)
        if not follows.all():
            self._close(envs[~follows])
            warnings.warn(
                f"{type(self).__name__} got a step from an observation that is not the one stored last (was the "
                "environment stepped or reset by others, or are steps added out of order?): an episode begins there.",
                stacklevel=3,
            )

    def _close(self, envs: np.ndarray) -> None:
        """End the running episodes of some environments at their newest slots."""
        for env in envs:
            last = self._written[env] - 1
            first = max(self._running_first[env], self._oldest[env])
            self._episode_last[env, np.arange(first, last + 1) % self.buffer_size] = last
        self._running_first[envs] = _NONE

    def _draw_slots(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw slots uniformly from all that are written: their environments and absolute numbers, (count,) each."""
        ends = np.cumsum(self._written - self._oldest)
        draws = np.random.randint(ends[-1], size=count)
        envs = np.searchsorted(ends, draws, side="right")
        # Counted back from an environment's newest slot.
        return envs, self._written[envs] - (ends[envs] - draws)

    def _windows(
        self,
        envs: np.ndarray,
        steps: np.ndarray,
        starts: np.ndarray,
        env: VecNormalize | None,
        weights: np.ndarray | None = None,
    ) -> SequenceSamples:
        """Copy windows out of the ring, repeating the last slot of an episode that ends within its window.

        :param envs: (B,) the windows' environments
        :param steps: (B,) absolute numbers of slots, each in the episode that its window shall lie in
        :param starts: (B,) where the windows shall begin; they are moved until they lie in their episodes
        :param env: normalises observations and rewards where given
        :param weights: (B,) float32; None: all the same
        """
        first = envs * self.buffer_size
        own = first + steps % self.buffer_size
        firsts = np.maximum(self._episode_first.reshape(-1)[own], self._oldest[envs])
        lasts = np.minimum(self._episode_last.reshape(-1)[own], self._written[envs] - 1)
        # An episode's last slot holds no step, so its last full window of steps begins sequence_length slots earlier.
        starts = np.clip(starts, firsts, np.maximum(firsts, lasts - self.sequence_length))
        burn_in_starts = np.maximum(starts - self.burn_in, firsts)

        offsets = np.arange(self.sequence_length + self.lookahead)[:, None]
        slots = first + np.minimum(starts + offsets, lasts) % self.buffer_size
        acted = self._acted.reshape(-1)[slots]
        arrays = {
            **self._observations.asked(slots, env),
            "actions": self.actions.reshape(-1)[slots],
            "rewards": self._normalize_reward(self.rewards.reshape(-1)[slots], env),
            "terminated": self._terminated.reshape(-1)[slots],
            "acted": acted,
            "weights": np.ones(len(envs), dtype=np.float32) if weights is None else weights,
        }
        if self.burn_in:
            before = first + np.minimum(burn_in_starts + np.arange(self.burn_in)[:, None], starts) % self.buffer_size
            arrays |= self._observations.asked(before, env, "before ")
            arrays["lengths"] = starts - burn_in_starts
        if self._states is not None:
            arrays["states"] = self._states[envs, burn_in_starts % self.buffer_size]
        moved = to_device(arrays, self.device)
        return SequenceSamples(
            observations=self._observations.given(moved),
            **{name: moved[name] for name in ("actions", "rewards", "terminated", "acted", "weights")},
            mask=moved["acted"][: self.sequence_length],
            burn_in=BurnIn(self._observations.given(moved, "before "), moved["lengths"]) if self.burn_in else None,
            states=moved.get("states"),
            indices=own,
        )


def _named(key: str | None) -> str:
    """What a part of the observations is called among the contents."""
    return f"observation.{key or ''}"
