"""What the recurrent Q-learning agents share: acting, replay of windows, the update."""

import io
import pathlib
import warnings
from typing import Any, Literal, TypeVar

import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import LinearSchedule, get_parameters_by_name

from sb3_permakey.common.agents_buffer import make_buffer, misfit, place_observations
from sb3_permakey.common.arguments import (
    FORMAT,
    TargetUpdateInterval,
    check_arguments,
    policy_named,
    updates_between_targets,
)
from sb3_permakey.common.clipped_step import clipped_step
from sb3_permakey.common.memory import stacked
from sb3_permakey.common.numpy_versions import newer_numpy_named
from sb3_permakey.common.prioritized_buffer import PrioritizedSequenceReplayBuffer
from sb3_permakey.common.recurrent_acting import RecurrentActing
from sb3_permakey.common.recurrent_networks import RecurrentQNetwork
from sb3_permakey.common.recurrent_policies import RecurrentQPolicy
from sb3_permakey.common.sequence_buffer import SequenceReplayBuffer
from sb3_permakey.common.targets import (
    bootstrapped,
    masked_mean,
    n_step_targets,
    rescale_values,
    sequence_priorities,
    unscale_values,
    values_of,
)
from sb3_permakey.common.windows import Learned, StepErrors
from sb3_permakey.keypoints.captured import CapturedCall
from sb3_permakey.keypoints.transfer import to_host

USELESS_CAPTURES = (
    "cuda_graph=True is of no use here: the learning rate, the discount or n changes with every update, so that none "
    "can be replayed. Give constants, or leave cuda_graph out."
)
SelfRecurrentQLearning = TypeVar("SelfRecurrentQLearning", bound="RecurrentQLearning")


class RecurrentQLearning(RecurrentActing):
    """Q-learning with an LSTM or GRU, which learns from windows of consecutive steps.

    Arguments up to ``_init_setup_model`` are those of SB3's DQN, in its order. The defaults are those of the PermaKey
    agent, https://openreview.net/forum?id=i8ZdqL-o-Q_ (learning_starts, train_freq and gamma: of its released code);
    `sb3_permakey.common.presets.R2D2` holds those of R2D2, https://openreview.net/forum?id=r1lyTjAqYX.

    :param policy: "MlpLstmPolicy", "CnnLstmPolicy", "MultiInputLstmPolicy", "PermaKeyPolicy", or a class
    :param env: the environment to learn from (if registered in gymnasium, can be str)
    :param learning_rate: learning rate, may be a function of the remaining progress (from 1 to 0)
    :param buffer_size: observations in the replay buffer, of all environments together
    :param learning_starts: steps of random play before learning starts
    :param batch_size: windows in a batch
    :param tau: part of the online network that moves into the target network at its update ("Polyak update")
    :param gamma: discount factor
    :param train_freq: environment steps between updates, or a tuple like ``(5, "step")`` or ``(2, "episode")``
    :param gradient_steps: gradient updates each time; -1 for as many as steps were made
    :param replay_buffer_class: a subclass of SequenceReplayBuffer, which is the default
    :param replay_buffer_kwargs: its further arguments
    :param optimize_memory_usage: must be False, SequenceReplayBuffer already stores each observation once
    :param n_steps: n of the n-step targets (Sutton & Barto 2018, section 7.1)
    :param target_update_interval: environment steps between updates of the target network, as in DQN, which come right
        after gradient updates: 1 for one after each; or ``(2500, "update")`` to count gradient updates
    :param exploration_fraction: part of the training over which the exploration rate falls
    :param exploration_initial_eps: rate of random actions at the beginning
    :param exploration_final_eps: rate of random actions at the end
    :param max_grad_norm: the gradient's norm is clipped to this
    :param stats_window_size: episodes over which the logged statistics are averaged
    :param tensorboard_log: TensorBoard directory, None for no logging
    :param policy_kwargs: further arguments of the policy
    :param verbose: 0 for no output, 1 for information, 2 for debugging
    :param seed: seed of all random numbers
    :param device: "cpu", "cuda" or "auto"
    :param _init_setup_model: whether to build the networks at once
    :param sequence_length: steps to learn from in a window
    :param burn_in: steps before them that only warm the recurrent state up, without gradient; fewer where the episode
        began less long ago (Kapturowski et al. 2019, section 3)
    :param recurrent_state: what a window (with its burn-in) begins with: "zero", or "stored": the state that acting
        had there (Kapturowski et al. 2019, section 3)
    :param double_q: whether the online network chooses the actions that the target network values (van Hasselt et al.
        2016)
    :param prioritized_replay: whether windows with larger TD errors are drawn more often (Schaul et al. 2016)
    :param priority_alpha: exponent of the priorities
    :param priority_beta: exponent of the importance weights
    :param priority_eta: share of a window's largest TD error in its priority, beside the mean (Kapturowski et al. 2019,
        section 2.3)
    :param value_rescaling: whether values are learned under h(x) = sign(x) (sqrt(|x| + 1) - 1) + 0.001 x (Pohlen et al.
        2018); lets rewards of any size do without clipping
    :param cuda_graph: whether an update on a GPU, and a step of acting, is replayed as one CUDA graph, for which a
        features extractor of your own must not look at values on the host; without effect on a CPU
    :param replay_device: where replay keeps observations: "cpu", in the host's memory; "cuda", on the GPU that learns,
        so that those of a batch need not be copied there; "auto", there if they take no more than half of its free
        memory. Where a CPU learns, always in the host's memory
    :raises ValueError: if an argument is out of its range
    """

    q_net_target: RecurrentQNetwork
    # Of agents that an older version saved, which kept none.
    _format = 1
    # Of agents that an older version saved.
    replay_device: torch.device | str = "cpu"
    _captured: CapturedCall[Learned] | None = None
    # By which a saved agent is loaded again without naming its class; see `saved_agents.load_agent`.
    _agent_class: str

    def __init__(
        self,
        policy: str | type[RecurrentQPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 2e-4,
        buffer_size: int = 100_000,
        learning_starts: int = 10_000,
        batch_size: int = 16,
        tau: float = 0.005,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] = 4,
        gradient_steps: int = 1,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        n_steps: int = 3,
        target_update_interval: TargetUpdateInterval = 1,
        exploration_fraction: float = 1.0,
        exploration_initial_eps: float = 1.0,
        exploration_final_eps: float = 0.1,
        max_grad_norm: float = 10,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
        *,
        sequence_length: int = 8,
        burn_in: int = 0,
        recurrent_state: Literal["zero", "stored"] = "zero",
        double_q: bool = True,
        prioritized_replay: bool = False,
        priority_alpha: float = 0.9,
        priority_beta: float = 0.6,
        priority_eta: float = 0.9,
        value_rescaling: bool = False,
        cuda_graph: bool = False,
        replay_device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(
            policy,
            env,
            learning_rate,
            buffer_size,
            learning_starts,
            batch_size,
            tau,
            gamma,
            train_freq,
            gradient_steps,
            replay_buffer_class=replay_buffer_class,
            replay_buffer_kwargs=replay_buffer_kwargs,
            optimize_memory_usage=optimize_memory_usage,
            n_steps=n_steps,
            policy_kwargs=policy_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            support_multi_env=True,
            seed=seed,
            sde_support=False,
            supported_action_spaces=(spaces.Discrete,),
        )
        self.target_update_interval = target_update_interval
        self.exploration_fraction = exploration_fraction
        self.exploration_initial_eps = exploration_initial_eps
        self.exploration_final_eps = exploration_final_eps
        self.exploration_rate = 0.0
        self.max_grad_norm = max_grad_norm
        self.sequence_length = sequence_length
        self.burn_in = burn_in
        self.recurrent_state = recurrent_state
        self.double_q = double_q
        self.prioritized_replay = prioritized_replay
        self.priority_alpha = priority_alpha
        self.priority_beta = priority_beta
        self.priority_eta = priority_eta
        self.value_rescaling = value_rescaling
        self.cuda_graph = cuda_graph
        self.replay_device = replay_device
        # As load does, which then puts a saved agent's arguments in their places.
        self._loads = not _init_setup_model
        if _init_setup_model:
            self._format = FORMAT
            self._setup_model()

    def _setup_model(self) -> None:
        if self._format < FORMAT and isinstance(self.target_update_interval, int):
            self.target_update_interval = (self.target_update_interval, "update")
        self._format = FORMAT
        self._agent_class = f"{type(self).__module__}:{type(self).__qualname__}"
        self._convert_train_freq()
        check_arguments(self)
        self.replay_buffer = make_buffer(self, self._lookahead)
        with warnings.catch_warnings():
            # That a buffer of another class than SB3's gets no n_steps; this one just got it.
            warnings.filterwarnings("ignore", r"`n_steps=\d+` is ignored")
            super()._setup_model()
        self.q_net, self.q_net_target = self.policy.q_net, self.policy.q_net_target
        if self.recurrent_state == "stored":
            if not self.q_net.rnn.remembers:
                raise ValueError('recurrent_state="stored" needs a memory: choose another rnn_type, or "zero".')
            self.replay_buffer.store_states(stacked(self.q_net.initial_states(1))[0].cpu().numpy())
        # What an update changes, and what follows it in the target network.
        self._parameters: list[torch.Tensor] = list(self.q_net.parameters())
        self._target_parameters: list[torch.Tensor] = list(self.q_net_target.parameters())
        self.batch_norm_stats = get_parameters_by_name(self.q_net, ["running_"])
        self.batch_norm_stats_target = get_parameters_by_name(self.q_net_target, ["running_"])
        self.exploration_schedule = LinearSchedule(
            self.exploration_initial_eps, self.exploration_final_eps, self.exploration_fraction
        )

    @property
    def _lookahead(self) -> int:
        """Largest n of the targets."""
        return self.n_steps

    def needed_buffer(self) -> type[SequenceReplayBuffer]:
        """The class that replay_buffer_class is, or is derived from."""
        return PrioritizedSequenceReplayBuffer if self.prioritized_replay else SequenceReplayBuffer

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        return policy_named(policy_name, type(self).__name__, self.policy_aliases)

    def train(self, gradient_steps: int, batch_size: int = 16) -> None:
        """Update the online network ``gradient_steps`` times, and the target network after it.

        :param gradient_steps: how many updates
        :param batch_size: windows in a batch
        :raises ValueError: if the loss or the gradient of the last one is not finite
        """
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        for _ in range(gradient_steps):
            batch = self._sample_batch(batch_size)
            learned = self._learn_from(batch)
            self._n_updates += 1
            if self._n_updates % updates_between_targets(self) == 0:
                self._update_target()
            if learned.priorities is not None:
                assert isinstance(self.replay_buffer, PrioritizedSequenceReplayBuffer)
                self.replay_buffer.update_priorities(batch.indices, *to_host([learned.priorities]))
            self._after_update()
        self._last_observations = batch.observations
        td_error, q_mean = (masked_mean(part, batch.mask) for part in (learned.td_errors.abs(), learned.q_values))
        self._note_update(torch.stack([learned.loss, learned.grad_norm, td_error, q_mean]))

    def _learn_from(self, batch: Any) -> Learned:
        """Move the online network along the gradient of a batch's loss; on a GPU as one replay, if so asked for."""
        if not self._captures:
            return self._descend(batch)
        if self._captured is None:
            self._captured = CapturedCall(self._descend, useless=USELESS_CAPTURES)
        return self._captured(batch, self._settings_of(batch))

    def _settings_of(self, batch: Any) -> tuple[float, ...]:
        """Numbers that a captured update holds fast, and where the optimizer's state lies."""
        optimizer = self.policy.optimizer
        moments = [state["exp_avg"].data_ptr() for state in optimizer.state.values() if "exp_avg" in state]
        rates = [group["lr"] for group in optimizer.param_groups]
        # A batch without discounts of its own gets them, and n, within the update.
        settings = () if hasattr(batch, "discounts") else (self.gamma, self._present_n_steps())
        return (*settings, *rates, *moments)

    def _descend(self, batch: Any) -> Learned:
        """One step of the optimizer; everything stays on the device, and nothing's shape depends on values."""
        errors = self._step_errors(batch)
        loss = masked_mean(errors.losses * batch.weights, batch.mask)
        self.policy.optimizer.zero_grad()
        loss.backward()
        grad_norm = clipped_step(self.policy.optimizer, self._parameters, self.max_grad_norm)
        priorities = None
        if isinstance(self.replay_buffer, PrioritizedSequenceReplayBuffer):
            priorities = sequence_priorities(errors.td_errors, batch.mask, self.priority_eta)
        return Learned(loss.detach(), grad_norm, errors.td_errors, errors.q_values, priorities)

    def _sample_batch(self, batch_size: int) -> Any:
        """What an update learns from."""
        return self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)

    def _after_update(self) -> None:
        """For what an agent does beside updates, with `_n_updates` counted already."""

    @torch.no_grad()
    def _update_target(self) -> None:
        """Move the target network's parameters, and give it the online network's BatchNorm statistics, as SB3 does."""
        torch._foreach_lerp_(self._target_parameters, self._parameters, self.tau)
        if self.batch_norm_stats:
            torch._foreach_copy_(self.batch_norm_stats_target, self.batch_norm_stats)

    def _step_errors(self, windows: Any) -> StepErrors:
        """What each step of the windows tells, (L, B) each: the values of the actions taken beside their targets."""
        values, steps, n_steps = self.q_net.values, len(windows.mask), self._present_n_steps()
        states = self.q_net.prepare_windows(windows.observations)
        # (T, B, actions, N), of all T = L + n states.
        online = self.q_net.window_values(
            states, self.q_net.warmed_up_states(windows.burn_in, windows.states), learned_steps=steps
        )
        predicted = values_of(windows.actions[:steps], online[:steps])
        with torch.no_grad():
            target = self.q_net_target.window_values(
                states, self.q_net_target.warmed_up_states(windows.burn_in, windows.states)
            )
            # The forward pass that is learned from also chooses the actions: double Q-learning costs nothing.
            best_actions = values.expected(online if self.double_q else target).argmax(dim=-1)
            outputs = values_of(best_actions, target)
            places = values.places(outputs)
            if self.value_rescaling:
                places = unscale_values(places)
            discounts = self.gamma * (~windows.terminated).float()
            places = n_step_targets(windows.rewards, discounts, places, windows.acted, n_steps)[:steps]
            if self.value_rescaling:
                places = rescale_values(places)
            targets = values.targets(places, lambda: bootstrapped(outputs, windows.acted, n_steps)[:steps])
        losses, errors = values.losses(predicted, targets)
        return StepErrors(losses, errors, values.expected(predicted.detach()))

    def _present_n_steps(self) -> int:
        """n of the targets of this update."""
        return self.n_steps

    @classmethod
    def load(cls: type[SelfRecurrentQLearning], path: Any, *args: Any, **kwargs: Any) -> SelfRecurrentQLearning:
        """Load an agent, with SB3's arguments; a newer numpy that saved it is named where this one cannot read it."""
        with newer_numpy_named(path):
            return super().load(path, *args, **kwargs)

    def load_replay_buffer(self, path: str | pathlib.Path | io.BufferedIOBase, truncate_last_traj: bool = True) -> None:
        """Load a replay buffer that save_replay_buffer wrote; its windows get this agent's lengths.

        :param path: the pickle file (load none that you do not trust)
        :param truncate_last_traj: whether the episodes that were running are over; False if they go on
        :raises ValueError: if it does not fit this agent, which then keeps the one it has
        """
        before = self.replay_buffer
        super().load_replay_buffer(path, truncate_last_traj)
        loaded, self.replay_buffer = self.replay_buffer, before
        if difference := misfit(loaded, self):
            raise ValueError(f"The replay buffer in {path} does not fit this {type(self).__name__}: {difference}.")
        loaded.sequence_length, loaded.lookahead, loaded.burn_in = self.sequence_length, self._lookahead, self.burn_in
        if isinstance(loaded, PrioritizedSequenceReplayBuffer):
            loaded.set_exponents(self.priority_alpha, self.priority_beta)
        if self.recurrent_state == "zero":
            loaded.forget_states()
        if truncate_last_traj:
            loaded.close_episodes()
        place_observations(loaded, self)
        self.replay_buffer = loaded
        self.buffer_size = loaded.n_envs * loaded.buffer_size

    def _excluded_save_params(self) -> list[str]:
        networks = ["q_net", "q_net_target", "_parameters", "_target_parameters"]
        statistics = ["batch_norm_stats", "batch_norm_stats_target"]
        unsaved = [
            "_last_lstm_states",
            "_last_state_arrays",
            "_last_observations",
            "_noted",
            "_captured",
            "_captured_acting",
            "_watch",
            "_returns_watch",
            "_loads",
        ]
        return [*super()._excluded_save_params(), *networks, *statistics, *unsaved]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer"], []
