"""Rainbow for Stable-Baselines3, with what makes agents learn from 100,000 steps."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_permakey.common.annealing import annealed_discount, annealed_steps, most_steps
from sb3_permakey.common.arguments import TargetUpdateInterval
from sb3_permakey.common.memory import Memory, memory_cell
from sb3_permakey.common.prioritized_buffer import PrioritizedSequenceReplayBuffer
from sb3_permakey.common.recurrent_policies import RecurrentQPolicy
from sb3_permakey.common.recurrent_q_learning import RecurrentQLearning
from sb3_permakey.common.resets import shrink_and_perturb
from sb3_permakey.common.sequence_buffer import SequenceReplayBuffer
from sb3_permakey.common.targets import values_of
from sb3_permakey.common.transition_buffer import PrioritizedReplayBuffer, Transitions
from sb3_permakey.common.value_heads import ValueHeadKind
from sb3_permakey.common.windows import StepErrors
from sb3_permakey.rainbow.policies import CnnPolicy, MlpPolicy, MultiInputPolicy, PermaKeyPolicy


class Rainbow(RecurrentQLearning):
    """DQN with double Q-learning, dueling layers, a distribution over returns, prioritized replay and n-step targets.

    Rainbow: https://arxiv.org/abs/1710.02298. Of its six parts only the noisy layers are left out, for epsilon-greedy
    play that ends early. Annealed n and discount, resets, weight decay and acting with the target network are those
    of BBF, https://arxiv.org/abs/2305.19452, whose settings are the defaults; `sb3_permakey.common.presets` holds the
    original's too.

    Arguments up to ``_init_setup_model`` are those of SB3's DQN, in its order, and mean what they mean there and in
    `RecurrentQLearning`, which explains them all. Here are those that mean more, or have another default.

    :param policy: "MlpPolicy", "CnnPolicy", "MultiInputPolicy", "PermaKeyPolicy", or a class
    :param env: the environment to learn from (if registered in gymnasium, can be str)
    :param learning_starts: steps of random play before learning starts
    :param batch_size: transitions in a batch
    :param tau: part of the online network that moves into the target network after each update
    :param gamma: discount factor, or (from, to, over how many updates), begun anew at each reset
    :param gradient_steps: gradient updates each time; -1 for as many as steps were made
    :param replay_buffer_class: a subclass of PrioritizedReplayBuffer, which is the default
    :param n_steps: n of the n-step targets, or (from, to, over how many updates), begun anew at each reset
    :param exploration_fraction: part of the training over which the exploration rate falls
    :param exploration_final_eps: rate of random actions from then on
    :param policy_kwargs: further arguments of the policy
    :param double_q: whether the online network chooses the actions that the target network values
    :param dueling: whether state value and advantages are added up
    :param value_head: "categorical", "quantile", "scalar", or what makes `Values` of your own
    :param n_atoms: atoms of the categorical distribution
    :param v_min: its lowest return
    :param v_max: its highest return
    :param n_quantiles: number of quantiles
    :param prioritized_replay: whether transitions with larger errors are drawn more often
    :param priority_alpha: exponent of the priorities
    :param priority_beta: exponent of the importance weights
    :param reset_interval: gradient updates between two resets; 0 for none
    :param last_reset: after so many gradient updates no reset comes any more; None: they never cease
    :param reset_shrink: share of the features extractor's weights that stays at a reset
    :param act_with_target: whether the target network acts, in training and in use
    :param weight_decay: of the weight matrices, decoupled from the loss (AdamW)
    :param memory: "none", "lstm", "gru", "mingru", or a class, see `sb3_permakey.common.memory`: with a memory the
        agent learns from windows, as `RecurrentDQN` does, whose are the three arguments that follow
    :param sequence_length: steps to learn from in a window
    :param burn_in: steps before them that only warm the recurrent state up
    :param recurrent_state: what a window begins with: "zero", or "stored"
    :param cuda_graph: whether an update on a GPU, and a step of acting, is replayed as one CUDA graph
    :param replay_device: where replay keeps observations: "cpu", "cuda" or "auto"
    :raises ValueError: if an argument is out of its range
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
        "PermaKeyPolicy": PermaKeyPolicy,
    }
    replay_buffer: Any

    def __init__(
        self,
        policy: str | type[RecurrentQPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-4,
        buffer_size: int = 100_000,
        learning_starts: int = 2_000,
        batch_size: int = 32,
        tau: float = 0.005,
        gamma: float | tuple[float, float, int] = (0.97, 0.997, 10_000),
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int = 2,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        n_steps: int | tuple[int, int, int] = (10, 3, 10_000),
        target_update_interval: TargetUpdateInterval = 1,
        exploration_fraction: float = 0.04,
        exploration_initial_eps: float = 1.0,
        exploration_final_eps: float = 0.0,
        max_grad_norm: float = 10,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
        *,
        double_q: bool = True,
        dueling: bool = True,
        value_head: ValueHeadKind = "categorical",
        n_atoms: int = 51,
        v_min: float = -10.0,
        v_max: float = 10.0,
        n_quantiles: int = 51,
        prioritized_replay: bool = True,
        priority_alpha: float = 0.5,
        priority_beta: float = 0.5,
        reset_interval: int = 40_000,
        last_reset: int | None = 120_000,
        reset_shrink: float = 0.5,
        act_with_target: bool = True,
        weight_decay: float = 0.1,
        memory: Memory = "none",
        sequence_length: int = 8,
        burn_in: int = 0,
        recurrent_state: Literal["zero", "stored"] = "zero",
        cuda_graph: bool = False,
        replay_device: torch.device | str = "cpu",
    ) -> None:
        if reset_interval < 0:
            raise ValueError(f"reset_interval must be 0 or more, got {reset_interval}.")
        if not 0 <= reset_shrink <= 1:
            raise ValueError(f"reset_shrink must be from 0 to 1, got {reset_shrink}.")
        if weight_decay < 0:
            raise ValueError(f"weight_decay must be 0 or more, got {weight_decay}.")
        self.n_steps_annealed, self.gamma_annealed = n_steps, gamma
        self.reset_interval, self.last_reset, self.reset_shrink = reset_interval, last_reset, reset_shrink
        self._updates_at_reset = 0
        self.memory = memory
        remembers = memory_cell(memory, "memory").remembers
        networks = {
            "rnn_type": memory,
            "dueling": dueling,
            "value_head": value_head,
            "n_atoms": n_atoms,
            "v_min": v_min,
            "v_max": v_max,
            "n_quantiles": n_quantiles,
            "act_with_target": act_with_target,
            "weight_decay": weight_decay,
            "optimizer_class": torch.optim.AdamW if weight_decay else torch.optim.Adam,
            "optimizer_kwargs": {"eps": 1.5e-4},
        }
        super().__init__(
            policy,
            env,
            learning_rate,
            buffer_size,
            learning_starts,
            batch_size,
            tau,
            annealed_discount(gamma, 0),
            train_freq,
            gradient_steps,
            replay_buffer_class,
            replay_buffer_kwargs,
            optimize_memory_usage,
            annealed_steps(n_steps, 0),
            target_update_interval,
            exploration_fraction,
            exploration_initial_eps,
            exploration_final_eps,
            max_grad_norm,
            stats_window_size,
            tensorboard_log,
            {**networks, **(policy_kwargs or {})},
            verbose,
            seed,
            device,
            _init_setup_model,
            sequence_length=sequence_length if remembers else 1,
            burn_in=burn_in if remembers else 0,
            recurrent_state=recurrent_state if remembers else "zero",
            double_q=double_q,
            prioritized_replay=True,
            priority_alpha=priority_alpha if prioritized_replay else 0.0,
            priority_beta=priority_beta,
            cuda_graph=cuda_graph,
            replay_device=replay_device,
        )

    def needed_buffer(self) -> type[SequenceReplayBuffer]:
        """The class that replay_buffer_class is, or is derived from."""
        remembers = memory_cell(self.memory).remembers
        return PrioritizedSequenceReplayBuffer if remembers else PrioritizedReplayBuffer

    @property
    def _lookahead(self) -> int:
        return most_steps(self.n_steps_annealed)

    def _present_n_steps(self) -> int:
        return annealed_steps(self.n_steps_annealed, self._n_updates - self._updates_at_reset)

    def _sample_batch(self, batch_size: int) -> Any:
        """Transitions over the n of now, with the discount of now; windows where there is a memory."""
        self.gamma = annealed_discount(self.gamma_annealed, self._n_updates - self._updates_at_reset)
        if memory_cell(self.memory).remembers:
            return super()._sample_batch(batch_size)
        return self.replay_buffer.sample_transitions(
            batch_size, self._present_n_steps(), self.gamma, self._vec_normalize_env
        )

    def _step_errors(self, windows: Any) -> StepErrors:
        """Losses (1, B) of transitions: the distribution over returns now, and as the steps taken have it."""
        if not isinstance(windows, Transitions):
            return super()._step_errors(windows)
        values, count = self.q_net.values, len(windows.actions)
        both = self.q_net.prepare_windows(windows.both)
        before, after = both.rows(0, count), both.rows(count, 2 * count)
        predicted = values_of(windows.actions, self.q_net.state_values(before))
        with torch.no_grad():
            target = self.q_net_target.state_values(after)
            choosing = self.q_net.values_in_use(after) if self.double_q else target
            outputs = values_of(values.expected(choosing).argmax(dim=-1), target)
            places = torch.addcmul(
                windows.returns.unsqueeze(-1), windows.discounts.unsqueeze(-1), values.places(outputs)
            )
            targets = values.targets(places, lambda: outputs)
        losses, errors = values.losses(predicted, targets)
        expected = values.expected(predicted.detach())
        return StepErrors(losses.unsqueeze(0), errors.unsqueeze(0), expected.unsqueeze(0))

    def _after_update(self) -> None:
        """A reset, where one is due: after it n and discount are annealed anew."""
        due = self.reset_interval and self._n_updates % self.reset_interval == 0
        if due and (self.last_reset is None or self._n_updates <= self.last_reset):
            self.reset_networks()

    def reset_networks(self) -> None:
        """Fresh weights for all but a share of the features extractor's, in both networks, and a fresh optimizer.

        BBF, https://arxiv.org/abs/2305.19452, section 4.
        """
        fresh = self.policy.make_q_net()
        shrink_and_perturb(self.q_net, fresh, self.q_net.features_extractor, self.reset_shrink)
        self.q_net_target.load_state_dict(self.q_net.state_dict())
        self.policy.optimizer.state.clear()
        self._updates_at_reset = self._n_updates
