"""Networks of the agents: features extractor -> memory -> values of the actions."""

from typing import Any

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
        training = self.training
        self.set_training_mode(False)
        features = self.recurrent_inputs(flat if isinstance(obs, dict) else flat[""])
        self.set_training_mode(training)
        return features

    def _spaces(self) -> dict[str, spaces.Space]:
        space = self.observation_space
        return dict(space.spaces) if isinstance(space, spaces.Dict) else {"": space}

    def state_values(self, obs: PyTorchObs) -> torch.Tensor:
        """Outputs (N, actions, outputs) for observations (N, ...), by a network without a memory."""
        return self.head(self.recurrent_inputs(obs))

    @torch.no_grad()
    def values_in_use(self, obs: PyTorchObs) -> torch.Tensor:
        """`state_values` in evaluation mode: what is left out while learning does not choose actions."""
        training = self.training
        self.set_training_mode(False)
        outputs = self.state_values(obs)
        self.set_training_mode(training)
        return outputs

    def window_values(
        self, obs: PyTorchObs, states: States | None = None, learned_steps: int | None = None
    ) -> torch.Tensor:
        """Values of every state of B windows of T steps.

        :param obs: (T, B, *observation shape), or a dict of these
        :param states: of the memory before them, (layers, B, units) each; None for the initial ones
        :param learned_steps: gradients reach the features of so many first steps alone; None for all. The states after
            them only choose actions, and need no backward pass through the features extractor
        :return: (T, B, actions, outputs)
        """
        if learned_steps is None:
            inputs = self._window_inputs(obs)
        else:
            learned, rest = _split_steps(obs, learned_steps)
            with torch.no_grad():
                inputs_of_rest = self._window_inputs(rest)
            inputs = torch.cat([self._window_inputs(learned), inputs_of_rest])
        output, _ = self.rnn.window(inputs, states)
        return self.head(output)

    @torch.no_grad()
    def warmed_up_states(self, burn_in: BurnIn | None, stored: torch.Tensor | None) -> States | None:
        """States of the memory before a batch of windows, from what came before them; no gradient reaches back.

        :param burn_in: observations before the windows; None without burn-in
        :param stored: (B, parts, layers, units), states before these; None for the initial ones
        :return: (layers, B, units) each; None for the initial ones
        """
        states = None if stored is None else unstacked(stored)
        if burn_in is None or not burn_in.lengths.any():
            return states
        if states is None:
            states = self.initial_states(len(burn_in.lengths))
        # Windows at their episode's start have no burn-in.
        some = torch.nonzero(burn_in.lengths).squeeze(1)
        rows = some.to(self.device)
        _, after = self.rnn.window(
            self._window_inputs(burn_in.observations)[:, rows],
            tuple(part[:, rows].contiguous() for part in states),
            lengths=burn_in.lengths[some],
        )
        return tuple(part.index_copy(1, rows, new) for part, new in zip(states, after, strict=True))

    def recurrent_inputs(self, obs: PyTorchObs) -> torch.Tensor:
        """What the memory sees of observations (N, ...): features, and the previous step where known."""
        prepared = preprocess_obs(obs, self.observation_space, normalize_images=self.normalize_images)
        if not self.knows_previous_step:
            return self.features_extractor(prepared)
        assert isinstance(prepared, dict)
        previous = [prepared.pop(PREVIOUS_ACTION), prepared.pop(PREVIOUS_REWARD)]
        return torch.cat([self.features_extractor(prepared), *previous], dim=1)

    def _window_inputs(self, obs: PyTorchObs) -> torch.Tensor:
        """`recurrent_inputs` of observations (T, B, ...): (T, B, features)."""
        if isinstance(obs, dict):
            shape = next(iter(obs.values())).shape[:2]
            return self.recurrent_inputs({key: value.flatten(0, 1) for key, value in obs.items()}).unflatten(0, shape)
        return self.recurrent_inputs(obs.flatten(0, 1)).unflatten(0, obs.shape[:2])


def _split_steps(obs: PyTorchObs, steps: int) -> tuple[PyTorchObs, PyTorchObs]:
    """Observations (T, B, ...) of the first steps, and of the others."""
    if isinstance(obs, dict):
        return {key: value[:steps] for key, value in obs.items()}, {key: value[steps:] for key, value in obs.items()}
    return obs[:steps], obs[steps:]
