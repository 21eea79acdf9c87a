"""Networks of the agents: features extractor -> memory -> values of the actions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, create_mlp
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_permakey.common.memory import Memory, MemoryCell, States, memory_cell, unstacked
from sb3_permakey.common.value_heads import ScalarValues, Values
from sb3_permakey.common.windows import BurnIn
from sb3_permakey.encoders.initialisation import initialise_head, initialise_layers
from sb3_permakey.envs.previous_action_reward import PREVIOUS_ACTION, PREVIOUS_REWARD, previous_step_size


class ValueHead(nn.Module):
    """Values of all actions from the recurrent layer's output: linear, an MLP, or two of them where dueling.

    Dueling: V(s) + A(s, a) - mean_a A(s, a), Wang et al. 2016, equation 9.

    :param in_features: width of the input
    :param n_actions: number of actions
    :param n_values: outputs for each action: 1, its number of quantiles or of atoms
    :param net_arch: units of the hidden layers
    :param activation_fn: activation of these layers
    :param dueling: whether state value and advantages have layers of their own
    :param shared_layers: whether the hidden layers are the same for both, each of which is linear on top of them
    """

    def __init__(
        self,
        in_features: int,
        n_actions: int,
        n_values: int,
        net_arch: list[int],
        activation_fn: type[nn.Module],
        dueling: bool,
        shared_layers: bool = False,
    ) -> None:
        super().__init__()
        self.n_actions = n_actions
        self.shared: nn.Sequential | None = None
        if shared_layers and net_arch:
            self.shared = nn.Sequential(*create_mlp(in_features, 0, net_arch, activation_fn))
            initialise_layers(self.shared, centred=False)
            in_features, net_arch = net_arch[-1], []
        self.advantages = nn.Sequential(*create_mlp(in_features, n_actions * n_values, net_arch, activation_fn))
        self.state_value = (
            nn.Sequential(*create_mlp(in_features, n_values, net_arch, activation_fn)) if dueling else None
        )
        initialise_head(self.advantages)
        if self.state_value is not None:
            initialise_head(self.state_value)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Values (..., n_actions, n_values) of features (..., in_features)."""
        if self.shared is not None:
            features = self.shared(features)
        values = self.advantages(features).unflatten(-1, (self.n_actions, -1))
        if self.state_value is None:
            return values
        return values - values.mean(dim=-2, keepdim=True) + self.state_value(features).unsqueeze(-2)


class Prepared(NamedTuple):
    """Observations as networks of the same kind compute with them, so that they are made once for all of these.

    :param inputs: what the features extractor takes, (N, ...), or a dict of these
    :param previous: (N, previous step's numbers); None where observations do not tell them
    :param windows: (T, B) where the N rows are T B states of windows
    """

    inputs: PyTorchObs
    previous: torch.Tensor | None
    windows: tuple[int, int] | None = None

    def rows(self, first: int, last: int) -> Prepared:
        """Some of the rows."""
        if isinstance(self.inputs, dict):
            inputs: PyTorchObs = {key: value[first:last] for key, value in self.inputs.items()}
        else:
            inputs = self.inputs[first:last]
        return Prepared(inputs, None if self.previous is None else self.previous[first:last])


class RecurrentQNetwork(BaseModel):
    """Values of the actions from a history of observations: features extractor, memory, head.

    :param observation_space: observation space
    :param action_space: action space, whose actions are counted from 0
    :param features_extractor: observations (N, ...) to features (N, features_dim), without the previous step's
    :param features_dim: number of features
    :param net_arch: units of the hidden layers between the recurrent layers and the values; none in the paper
    :param activation_fn: activation of these layers
    :param normalize_images: whether images are divided by 255
    :param lstm_hidden_size: units of each layer of the memory
    :param n_lstm_layers: number of these layers
    :param rnn_type: a memory's name ("lstm", "gru", "mingru", "none") or class
    :param dueling: whether state value and advantages have layers of their own
    :param shared_layers: whether these have the hidden layers in common
    :param values: what the outputs for an action mean; None for one value
    """

    features_extractor: BaseFeaturesExtractor
    action_space: spaces.Discrete
    made_with: dict[str, Any]
    """The constructor's arguments, which `save` keeps."""

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        net_arch: list[int] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        normalize_images: bool = True,
        lstm_hidden_size: int = 128,
        n_lstm_layers: int = 1,
        rnn_type: Memory = "lstm",
        dueling: bool = False,
        shared_layers: bool = False,
        values: Values | None = None,
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            features_extractor=features_extractor,
            normalize_images=normalize_images,
        )
        previous_step = previous_step_size(observation_space)
        self.knows_previous_step = previous_step > 0
        width = int(features_dim) + previous_step
        self.rnn: MemoryCell = memory_cell(rnn_type)(width, lstm_hidden_size, n_lstm_layers)
        self.values = values or ScalarValues()
        self.head = ValueHead(
            self.rnn.outputs,
            int(action_space.n),
            self.values.outputs,
            net_arch or [],
            activation_fn,
            dueling,
            shared_layers,
        )

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), **self.made_with}

    def initial_states(self, count: int) -> States:
        """States of the memory of ``count`` episodes that begin, (layers, count, units) each."""
        return self.rnn.initial_states(count, self.device)

    def forward(self, obs: PyTorchObs, states: States, episode_starts: torch.Tensor) -> tuple[torch.Tensor, States]:
        """Values of one step of N environments, and the memory's states after it.

        :param obs: (N, *observation shape), or a dict of these
        :param states: (layers, N, units) each
        :param episode_starts: (N,) bool, where the memory begins anew
        :return: (N, actions, outputs), and the new states
        """
        output, new_states = self.rnn.step(self.recurrent_inputs(obs), states, episode_starts)
        return self.head(output), new_states

    @torch.no_grad()
    def features_of(self, obs: PyTorchObs, at_most: int = 256) -> torch.Tensor:
        """Features (N, features) of some of a batch's states, in evaluation mode.

        :param obs: (N, *observation shape) or (T, B, *observation shape), or a dict of these
        :param at_most: N
        """
        dims = {name: len(space.shape or ()) for name, space in self._spaces().items()}
        parts = obs if isinstance(obs, dict) else {"": obs}
        flat = {name: part.flatten(0, part.dim() - dims[name] - 1)[:at_most] for name, part in parts.items()}
        with self._evaluating():
            return self.recurrent_inputs(flat if isinstance(obs, dict) else flat[""])

    def _spaces(self) -> dict[str, spaces.Space]:
        space = self.observation_space
        return dict(space.spaces) if isinstance(space, spaces.Dict) else {"": space}

    def prepare(self, obs: PyTorchObs) -> Prepared:
        """What networks of this kind need of observations (N, ...), none of which depends on weights.

        A features extractor that has a method ``prepare_observations`` gets what that makes of them.
        """
        inputs, previous = preprocess_obs(obs, self.observation_space, normalize_images=self.normalize_images), None
        if self.knows_previous_step:
            assert isinstance(inputs, dict)
            previous = torch.cat([inputs.pop(PREVIOUS_ACTION), inputs.pop(PREVIOUS_REWARD)], dim=1)
        prepare = getattr(self.features_extractor, "prepare_observations", None)
        return Prepared(inputs if prepare is None else prepare(inputs), previous)

    def prepare_windows(self, obs: PyTorchObs) -> Prepared:
        """`prepare` of the states of windows (T, B, ...), as T B rows."""
        if isinstance(obs, dict):
            windows = next(iter(obs.values())).shape[:2]
            rows: PyTorchObs = {key: value.flatten(0, 1) for key, value in obs.items()}
        else:
            windows, rows = obs.shape[:2], obs.flatten(0, 1)
        return self.prepare(rows)._replace(windows=(windows[0], windows[1]))

    def state_values(self, obs: PyTorchObs | Prepared) -> torch.Tensor:
        """Outputs (N, actions, outputs) for observations (N, ...), by a network without a memory."""
        return self.head(self.recurrent_inputs(obs))

    @torch.no_grad()
    def values_in_use(self, obs: PyTorchObs | Prepared) -> torch.Tensor:
        """`state_values` in evaluation mode: what is left out while learning does not choose actions."""
        with self._evaluating():
            return self.state_values(obs)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        training = self.training
        self.set_training_mode(False)
        try:
            yield
        finally:
            self.set_training_mode(training)

    def window_values(
        self, obs: PyTorchObs | Prepared, states: States | None = None, learned_steps: int | None = None
    ) -> torch.Tensor:
        """Values of every state of B windows of T steps.

        :param obs: (T, B, *observation shape), a dict of these, or what `prepare_windows` makes of them
        :param states: of the memory before them, (layers, B, units) each; None for the initial ones
        :param learned_steps: gradients reach the features of so many first steps alone; None for all. The states after
            them only choose actions, and need no backward pass through the features extractor
        :return: (T, B, actions, outputs)
        """
        prepared = obs if isinstance(obs, Prepared) else self.prepare_windows(obs)
        assert prepared.windows is not None
        steps, count = prepared.windows
        if learned_steps is None:
            inputs = self.recurrent_inputs(prepared)
        else:
            learned = learned_steps * count
            with torch.no_grad():
                inputs_of_rest = self.recurrent_inputs(prepared.rows(learned, steps * count))
            inputs = torch.cat([self.recurrent_inputs(prepared.rows(0, learned)), inputs_of_rest])
        output, _ = self.rnn.window(inputs.unflatten(0, (steps, count)), states)
        return self.head(output)

    @torch.no_grad()
    def warmed_up_states(self, burn_in: BurnIn | None, stored: torch.Tensor | None) -> States | None:
        """States of the memory before a batch of windows, from what came before them; no gradient reaches back.

        :param burn_in: observations before the windows; None without burn-in
        :param stored: (B, parts, layers, units), states before these; None for the initial ones
        :return: (layers, B, units) each; None for the initial ones
        """
        states = None if stored is None else unstacked(stored)
        if burn_in is None:
            return states
        lengths, on_cpu = burn_in.lengths, burn_in.lengths.device.type == "cpu"
        if on_cpu and not lengths.any():
            return states
        states = self.initial_states(len(lengths)) if states is None else states
        inputs = self.recurrent_inputs(self.prepare_windows(burn_in.observations)).unflatten(0, (-1, len(lengths)))
        if not on_cpu:
            # All windows, so that no shape waits for the lengths.
            _, after = self.rnn.window(inputs, states, lengths=lengths.clamp(min=1))
            has_some = (lengths > 0).unsqueeze(-1)
            return tuple(torch.where(has_some, new, part) for part, new in zip(states, after, strict=True))
        # Windows at their episode's start have no burn-in.
        rows = torch.nonzero(lengths).squeeze(1)
        before = tuple(part[:, rows].contiguous() for part in states)
        _, after = self.rnn.window(inputs[:, rows], before, lengths=lengths[rows])
        return tuple(part.index_copy(1, rows, new) for part, new in zip(states, after, strict=True))

    def recurrent_inputs(self, obs: PyTorchObs | Prepared) -> torch.Tensor:
        """What the memory sees of observations (N, ...): features, and the previous step where known."""
        prepared = obs if isinstance(obs, Prepared) else self.prepare(obs)
        features = self.features_extractor(prepared.inputs)
        return features if prepared.previous is None else torch.cat([features, prepared.previous], dim=1)
