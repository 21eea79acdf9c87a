"""How recurrent agents act: the state is carried from step to step, and every step goes into the replay buffer."""

import math
import warnings
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, PyTorchObs, RolloutReturn, Schedule
from stable_baselines3.common.vec_env import VecEnv

from sb3_permakey.common.arguments import require_known_observations
from sb3_permakey.common.environment_watch import EnvironmentWatch
from sb3_permakey.common.feature_statistics import dead_units, effective_rank
from sb3_permakey.common.memory import States
from sb3_permakey.common.recurrent_networks import RecurrentQNetwork
from sb3_permakey.common.recurrent_policies import RecurrentQPolicy
from sb3_permakey.common.returns_watch import ReturnsWatch
from sb3_permakey.common.sequence_buffer import SequenceReplayBuffer
from sb3_permakey.common.stored_steps import (
    before_normalization,
    last_observations,
    require_finite,
    require_same_observations,
    rewards_before_normalization,
)
from sb3_permakey.common.value_heads import CategoricalValues
from sb3_permakey.keypoints.captured import CapturedCall

SelfRecurrentActing = TypeVar("SelfRecurrentActing", bound="RecurrentActing")
UPDATES_UNTOLD = 100
"""So many updates on a GPU may pass until the host looks whether they were finite, for which it waits."""
NO_EXPLORATION = 0.01
"""Below this rate random actions are too few to count as exploration."""


class RecurrentActing(OffPolicyAlgorithm):
    """Acting, exploring and storing of `RecurrentQLearning`, on SB3's hooks."""

    policy: RecurrentQPolicy
    q_net: RecurrentQNetwork
    replay_buffer: SequenceReplayBuffer
    recurrent_state: Literal["zero", "stored"]
    exploration_schedule: Schedule
    exploration_fraction: float
    exploration_final_eps: float
    exploration_rate = 0.0
    # The memory's states of the training environments; None where all begin.
    _last_lstm_states: States | None = None
    # The same on the host, where they are stored.
    _last_state_arrays: tuple[np.ndarray, ...] = ()
    _watch: EnvironmentWatch | None = None
    # Of values that are distributions over returns.
    _returns_watch: ReturnsWatch | None = None
    # What the last update learned from.
    _last_observations: PyTorchObs | None = None
    # Loss, gradient norm, mean TD error and mean value of the last update, where they were computed.
    _noted: torch.Tensor | None = None
    _updates_told = 0
    # Whether the next step stored is compared with what acting saw.
    _compares_replay = True
    # Of agents that an older version saved.
    cuda_graph = False
    _captured_acting: CapturedCall[list[torch.Tensor]] | None = None

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        require_known_observations(env.observation_space)
        return OffPolicyAlgorithm._wrap_env(env, verbose, monitor_wrapper)

    def learn(
        self: SelfRecurrentActing,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfRecurrentActing:
        """Learn for a number of environment steps.

        :param total_timesteps: steps of all environments together
        :param callback: called at every step
        :param log_interval: episodes between logs
        :param tb_log_name: name of the run in TensorBoard; None for the agent's
        :param reset_num_timesteps: whether to begin counting anew, with the environments reset
        :param progress_bar: whether to show one
        :return: the agent itself
        """
        return super().learn(
            total_timesteps,
            callback,
            log_interval,
            tb_log_name or type(self).__name__,
            reset_num_timesteps,
            progress_bar,
        )

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        assert self.env is not None
        held = self.replay_buffer.n_envs * self.replay_buffer.buffer_size
        if self.buffer_size < held - self.n_envs + 1:
            raise ValueError(
                f"{type(self).__name__} was loaded with buffer_size={self.buffer_size}, which does to play: to learn, "
                "load it with a larger one, or load a replay buffer."
            )
        if self._watch is None or self._watch.venv is not self.env:
            self._watch = EnvironmentWatch(self.env)
        elif self._watch.touched and not reset_num_timesteps and self._last_obs is not None:
            self._tell_of_others()
            self._last_obs = None
        resets = reset_num_timesteps or self._last_obs is None
        if resets:
            # The base class now resets the environments, and marks the LSTM states to be reset: _last_episode_starts.
            self.replay_buffer.close_episodes()
        prepared = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        values = self.q_net.values
        if self._returns_watch is None and isinstance(values, CategoricalValues):
            self._returns_watch = ReturnsWatch(self.n_envs, values.v_min, values.v_max)
        if resets:
            self._begin_episodes()
        self._compares_replay = True
        if reset_num_timesteps:
            self._warn_of_short_training(total_timesteps)
        return prepared

    def _warn_of_short_training(self, total_timesteps: int) -> None:
        """Say so where nothing is learned, or nothing is explored once learning has started."""
        name, explored = type(self).__name__, int(self.exploration_fraction * total_timesteps)
        if total_timesteps <= self.learning_starts:
            warnings.warn(
                f"{name} learns nothing in these {total_timesteps} steps: it acts at random for "
                f"the first learning_starts={self.learning_starts}.",
                stacklevel=5,
            )
        elif explored <= self.learning_starts and self.exploration_final_eps < NO_EXPLORATION:
            warnings.warn(
                f"{name}'s epsilon is {self.exploration_final_eps:g} after {explored} of these {total_timesteps} "
                f"steps, before learning_starts={self.learning_starts}, so that what it learns is never tried beside "
                f"random actions: give a larger exploration_fraction than {self.exploration_fraction:g}.",
                stacklevel=5,
            )

    def _begin_episodes(self) -> None:
        """Go on from observations that a reset of all environments has just given."""
        assert self._watch is not None
        assert self._last_obs is not None
        self._last_original_obs = before_normalization(self._last_obs, self._vec_normalize_env)
        self._last_episode_starts = np.ones(self.n_envs, dtype=bool)
        if self._returns_watch is not None:
            self._returns_watch.begin()
        self._watch.note()

    def _tell_of_others(self) -> None:
        warnings.warn(
            f"{type(self).__name__}'s training environments were stepped or reset by others, such as an evaluation on "
            "them: they are reset, and learning goes on with new episodes. Give evaluations environments of their own.",
            stacklevel=2,
        )

    def collect_rollouts(self, env: VecEnv, *args: Any, **kwargs: Any) -> RolloutReturn:
        """Act and store, as OffPolicyAlgorithm does; after a callback's stop or an error the next ``learn`` resets.

        The base class leaves the step at which it stops unrecorded, so windows would not be whole over that place.
        """
        assert self._watch is not None
        whole = False
        try:
            noted = self._watch.stepped if env is self.env else env
            rollout = super().collect_rollouts(noted, *args, **kwargs)
            whole = rollout.continue_training
        finally:
            if not whole:
                self._last_obs = None
        return rollout

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        assert self._watch is not None
        if self._watch.touched:
            assert self.env is not None
            self._tell_of_others()
            self.replay_buffer.close_episodes()
            self._last_obs = self.env.reset()  # type: ignore[assignment]
            self._begin_episodes()
        assert self._last_obs is not None
        assert self._last_episode_starts is not None
        if self._last_lstm_states is None:
            self._last_lstm_states = self.q_net.initial_states(self.n_envs)
        # During the warm-up too, so that the LSTM has seen all of an episode that outlasts it.
        greedy_actions, self._last_lstm_states, self._last_state_arrays = self.policy.act(
            self._last_obs,
            self._last_lstm_states,
            self._last_episode_starts,
            self.recurrent_state == "stored",
            self._greedy,
        )
        actions = self._explore(greedy_actions, 1.0 if self.num_timesteps < learning_starts else self.exploration_rate)
        return actions, actions

    @property
    def _captures(self) -> bool:
        """Whether what the GPU does is captured and replayed."""
        return self.cuda_graph and self.device.type == "cuda"

    def _greedy(self, *inputs: Any) -> list[torch.Tensor]:
        """`RecurrentQPolicy.greedy`; on a GPU as one replay, if so asked for."""
        if not self._captures:
            return self.policy.greedy(*inputs)
        if self._captured_acting is None:
            self._captured_acting = CapturedCall(lambda batch: self.policy.greedy(*batch))
        return self._captured_acting(inputs)

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: np.ndarray | dict[str, np.ndarray],
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        assert self.env is not None
        assert self._watch is not None
        if self._watch.touched:
            # By a callback, since this step: the next one resets, and VecNormalize's originals are of another step.
            return
        require_finite(new_obs, reward)
        normalizer = self._vec_normalize_env
        if self._compares_replay:
            require_same_observations(new_obs, self.env, normalizer)
            self._compares_replay = False
        states = {}
        if self.recurrent_state == "stored":
            # As `memory.stacked` has them.
            states["next_states"] = np.stack(self._last_state_arrays).transpose(2, 0, 1, 3)
        originals = before_normalization(new_obs, normalizer)
        replay_buffer.add(
            self._last_original_obs,  # type: ignore[arg-type]
            last_observations(originals, self._last_original_obs, dones, infos, normalizer),  # type: ignore[arg-type]
            buffer_action,
            rewards_before_normalization(reward, self.env, normalizer),
            dones,
            infos,
            **states,
        )
        self._last_obs, self._last_original_obs = new_obs, originals
        self._last_episode_starts = dones
        if self._returns_watch is not None:
            self._returns_watch.note(reward, dones, self.gamma)

    def _on_step(self) -> None:
        self.exploration_rate = self.exploration_schedule(self._current_progress_remaining)
        self.logger.record("rollout/exploration_rate", self.exploration_rate)

    def _explore(self, greedy_actions: np.ndarray, rate: float) -> np.ndarray:
        """Replace each action by a random one with probability ``rate``.

        :param greedy_actions: (n_envs,), or () for one environment
        :param rate: the exploration rate, epsilon
        :return: the same shape
        """
        random_actions = np.array([self.action_space.sample() for _ in range(greedy_actions.size)])
        explores = np.random.random(greedy_actions.shape) < rate
        return np.where(explores, random_actions.reshape(greedy_actions.shape), greedy_actions)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Actions and the recurrent state after them, called as RecurrentPPO's.

        The state moves on at random actions too.

        :param observation: one observation, or one of each of n_envs environments
        :param state: the memory's, such as hidden and cell state of an LSTM, (n_lstm_layers, n_envs,
            lstm_hidden_size) each; None where episodes begin
        :param episode_start: (n_envs,) where the memory begins anew; None for nowhere
        :param deterministic: whether to do without exploration (epsilon-greedy, for each environment on its own)
        :return: the actions, and the new state
        :raises ValueError: if the state is not of that shape, or a (observation, info) pair is given
        """
        actions, new_state = self.policy.predict(observation, state, episode_start, deterministic)
        return actions if deterministic else self._explore(actions, self.exploration_rate), new_state

    def _note_update(self, figures: torch.Tensor) -> None:
        """Keep what the last of the updates made at a time was like; told at once where that costs no wait for a GPU.

        :param figures: loss, gradient norm, mean TD error and mean value
        """
        self._noted = figures
        if figures.device.type == "cpu" or self._n_updates - self._updates_told >= UPDATES_UNTOLD:
            self._tell_of_update()

    def _tell_of_update(self) -> None:
        """Log the last update's figures.

        :raises ValueError: if they are not finite
        """
        if self._noted is None:
            return
        loss, grad_norm, td_error, q_mean = self._noted.tolist()
        self._noted, self._updates_told = None, self._n_updates
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        for name, value in {"loss": loss, "grad_norm": grad_norm, "td_error": td_error, "q_mean": q_mean}.items():
            self.logger.record(f"train/{name}", value)
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise ValueError(
                f"The loss or its gradient is not finite after {self.num_timesteps} steps (loss {loss}, gradient norm "
                f"{grad_norm}): lower the learning rate, or look for huge rewards or observations."
            )

    def dump_logs(self) -> None:
        """Write the log, with how full the replay buffer is, how large recurrent states are and how features spread."""
        self._tell_of_update()
        slots = self.replay_buffer.n_envs * self.replay_buffer.buffer_size
        self.logger.record("rollout/buffer_fill", self.replay_buffer.size() / slots)
        if self._last_lstm_states:
            norms = self._last_lstm_states[0].norm(dim=-1)
            self.logger.record("rollout/recurrent_state_norm", norms.mean().item())
        if self._last_observations is not None:
            features = self.q_net.features_of(self._last_observations)
            self.logger.record("train/feature_rank", effective_rank(features))
            self.logger.record("train/dead_units", dead_units(features))
        super().dump_logs()
