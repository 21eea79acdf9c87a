"""Policies of the recurrent agents: online and target network, acting with a recurrent state."""

from collections.abc import Callable
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import is_image_space, maybe_transpose
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.common.utils import is_vectorized_observation
from torch import nn

from sb3_permakey.common.extractor_check import check_extractor
from sb3_permakey.common.memory import Memory, States, memory_cell
from sb3_permakey.common.recurrent_networks import RecurrentQNetwork
from sb3_permakey.common.value_heads import ValueHeadKind, make_values
from sb3_permakey.encoders import KEYPOINT_ENCODERS, KeypointEncoder
from sb3_permakey.encoders.initialisation import first_weights
from sb3_permakey.envs.previous_action_reward import without_previous_step
from sb3_permakey.keypoints.transfer import to_device, to_host


class RecurrentQPolicy(BasePolicy):
    """Online and target network with the optimizer of the online one; what the agents' policies share.

    Observations of PreviousActionReward (or its VecEnv twin) give the previous action and reward to the recurrent
    layers beside the features.

    :param observation_space: observation space
    :param action_space: action space
    :param lr_schedule: learning rate schedule (may be constant)
    :param net_arch: units of the hidden layers between the recurrent layers and the values; none in the paper
    :param activation_fn: activation of these layers
    :param features_extractor_class: features extractor to use; None for the policy's default
    :param features_extractor_kwargs: its arguments besides the observation space
    :param normalize_images: whether images are divided by 255
    :param optimizer_class: optimizer, Adam by default
    :param optimizer_kwargs: its arguments besides the learning rate
    :param lstm_hidden_size: units of each layer of the memory
    :param n_lstm_layers: number of these layers
    :param rnn_type: the memory: "lstm", "gru", "mingru", "none", or a class, see `sb3_permakey.common.memory`
    :param dueling: whether state value and advantages have layers of their own (Wang et al. 2016)
    :param shared_layers: whether these have the hidden layers in common
    :param value_head: "scalar", "quantile", "categorical", or what makes `Values` of your own
    :param n_quantiles: quantiles of each action
    :param n_atoms: atoms of each action's categorical distribution
    :param v_min: its lowest return
    :param v_max: its highest return
    :param weight_decay: decoupled weight decay of the weight matrices (Loshchilov & Hutter 2019); 0 for none
    :param act_with_target: whether the target network chooses the actions, in training and in use: with a small tau it
        is a moving average of the online network and changes less from step to step (Schwarzer et al. 2023)
    :param ortho_init: whether the package's layers, but for KeypointGNN's, begin with orthogonal weights, see
        `sb3_permakey.encoders.initialisation`, or else with torch's own, which are smaller
    :raises ValueError: if the features extractor is not one for this kind of observation space, net_arch is no list of
        numbers, or rnn_type is unknown
    """

    q_net: RecurrentQNetwork
    q_net_target: RecurrentQNetwork
    default_extractor: ClassVar[type[BaseFeaturesExtractor]] = FlattenExtractor
    agent: ClassVar[str] = ""
    """Name of the agent whose policy it is; "" for any."""

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        net_arch: list[int] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        lstm_hidden_size: int = 128,
        n_lstm_layers: int = 1,
        rnn_type: Memory = "lstm",
        dueling: bool = False,
        shared_layers: bool = False,
        value_head: ValueHeadKind = "scalar",
        n_quantiles: int = 1,
        n_atoms: int = 51,
        v_min: float = -10.0,
        v_max: float = 10.0,
        act_with_target: bool = False,
        weight_decay: float = 0.0,
        ortho_init: bool = True,
    ) -> None:
        features_extractor_class = features_extractor_class or self.default_extractor
        remembers = memory_cell(rnn_type).remembers
        check_extractor(observation_space, features_extractor_class, "Lstm" if remembers else "")
        super().__init__(
            observation_space,
            action_space,
            features_extractor_class,
            features_extractor_kwargs,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
            normalize_images=normalize_images,
        )
        self.net_args = {
            "net_arch": hidden_units(net_arch),
            "activation_fn": activation_fn,
            "lstm_hidden_size": lstm_hidden_size,
            "n_lstm_layers": n_lstm_layers,
            "rnn_type": rnn_type,
            "dueling": dueling,
            "shared_layers": shared_layers,
        }
        self.value_args = {
            "value_head": value_head,
            "n_quantiles": n_quantiles,
            "n_atoms": n_atoms,
            "v_min": v_min,
            "v_max": v_max,
        }
        self.weight_decay = weight_decay
        self.act_with_target = act_with_target
        self.ortho_init = ortho_init
        self.q_net = self.make_q_net()
        self.q_net_target = self.make_q_net()
        self.q_net_target.load_state_dict(self.q_net.state_dict())
        self.q_net_target.set_training_mode(False)
        # One pass over all parameters instead of a dozen small operations for each; the same update.
        adam = optimizer_class in (torch.optim.Adam, torch.optim.AdamW) and "foreach" not in self.optimizer_kwargs
        faster = {"fused": True} if adam else {}
        self.optimizer = self.optimizer_class(
            self._parameter_groups(),
            lr=lr_schedule(1),  # type: ignore[call-arg]
            **{**faster, **self.optimizer_kwargs},
        )

    def _parameter_groups(self) -> Any:
        """The online network's parameters, in two groups where only matrices decay."""
        if not self.weight_decay:
            return self.q_net.parameters()
        matrices = [parameter for parameter in self.q_net.parameters() if parameter.dim() > 1]
        others = [parameter for parameter in self.q_net.parameters() if parameter.dim() <= 1]
        return [{"params": matrices, "weight_decay": self.weight_decay}, {"params": others, "weight_decay": 0.0}]

    def make_features_extractor(self) -> BaseFeaturesExtractor:
        """Make a features extractor, which does not see the previous action and reward."""
        return self.features_extractor_class(
            without_previous_step(self.observation_space), **self.features_extractor_kwargs
        )

    def make_q_net(self) -> RecurrentQNetwork:
        """Make a network with a features extractor of its own."""
        spaces_and_images = {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "normalize_images": self.normalize_images,
        }
        values = make_values(**self.value_args)  # type: ignore[arg-type]
        with first_weights(self.ortho_init):
            arguments = self._update_features_extractor({**spaces_and_images, **self.net_args, "values": values})
            q_net = RecurrentQNetwork(**arguments)
        q_net.made_with = arguments
        return q_net.to(self.device)

    def forward(self, obs: PyTorchObs, states: States, episode_starts: torch.Tensor) -> tuple[torch.Tensor, States]:
        """Greedy actions of one step of N environments, and the recurrent states after it.

        :param obs: (N, *observation shape), or a dict of these
        :param states: (layers, N, units) each
        :param episode_starts: (N,) bool, where the memory begins anew
        :return: (N,) int64, and the new states
        """
        net = self.acting_net
        values, new_states = net(obs, states, episode_starts)
        return net.values.expected(values).argmax(dim=1), new_states

    @property
    def acting_net(self) -> RecurrentQNetwork:
        """The network that chooses the actions."""
        return self.q_net_target if self.act_with_target else self.q_net

    # BasePolicy's abstract method; here it also takes and returns the memory's states.
    _predict = forward  # type: ignore[assignment]

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Greedy actions and the recurrent state after them, called as RecurrentPPO's.

        :param observation: one observation, or one of each of n_envs environments
        :param state: the memory's, such as hidden and cell state of an LSTM, (n_lstm_layers, n_envs,
            lstm_hidden_size) each; None where episodes begin
        :param episode_start: (n_envs,) where the memory begins anew; None for nowhere
        :param deterministic: without effect, exploration is the agent's
        :return: the actions, and the new state
        :raises ValueError: if state or episode_start is not of that shape, or a (observation, info) pair is given
        """
        if isinstance(observation, tuple):
            raise ValueError("predict takes an observation, not the (observation, info) pair of gymnasium's reset().")
        parts, is_vectorized = self._as_arrays(observation)
        n_envs = len(next(iter(parts.values())))
        if state is not None:
            self._check_states(state, n_envs)
            parts |= {f"state {number}": np.asarray(part, dtype=np.float32) for number, part in enumerate(state)}
        if episode_start is None:
            episode_start = np.zeros(n_envs, dtype=bool)
        elif np.size(episode_start) != n_envs:
            raise ValueError(f"episode_start must be of {n_envs} environments, as observation, got {episode_start!r}.")
        moved = to_device({**parts, "starts": np.reshape(episode_start, n_envs).astype(bool)}, self.device)
        starts = moved.pop("starts")
        states = tuple(moved.pop(f"state {number}") for number in range(len(state or ())))
        if state is None:
            states = self.q_net.initial_states(n_envs)
        actions, *new_states = to_host(self.greedy(self._observation_of(moved), states, starts))
        return actions if is_vectorized else actions.squeeze(axis=0), tuple(new_states)

    def obs_to_tensor(self, observation: np.ndarray | dict[str, np.ndarray]) -> tuple[PyTorchObs, bool]:
        """Observations as tensors on the policy's device, float64 as float32, since Apple's GPUs take no float64.

        :param observation: one observation, or one of each of N environments
        :return: (N, *observation shape), or a dict of these, and whether it was one of each
        :raises ValueError: for other entries than those that the agent learned from
        """
        parts, is_vectorized = self._as_arrays(observation)
        return self._observation_of(to_device(parts, self.device)), is_vectorized

    def _as_arrays(self, observation: np.ndarray | dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], bool]:
        """Observations as arrays (N, *shape) by name, "" where they are no dict, and whether they were one of each."""
        space = self.observation_space
        if isinstance(observation, dict):
            _check_entries(space, observation)
            assert isinstance(space, spaces.Dict)
            named = [(key, part, space[key]) for key, part in observation.items()]
        else:
            named = [("", observation, space)]
        parts, vectorised = {}, False
        for key, part, own in named:
            # A copy, as SB3 makes one.
            values = maybe_transpose(part, own) if is_image_space(own) else np.array(part)
            vectorised = vectorised or is_vectorized_observation(values, own)
            parts[key] = values.reshape((-1, *own.shape))  # type: ignore[misc]
        return parts, vectorised

    def _observation_of(self, parts: dict[str, torch.Tensor]) -> PyTorchObs:
        return parts if isinstance(self.observation_space, spaces.Dict) else parts[""]

    def act(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        states: States,
        episode_starts: np.ndarray,
        with_arrays: bool = False,
        greedy: Callable[..., list[torch.Tensor]] | None = None,
    ) -> tuple[np.ndarray, States, tuple[np.ndarray, ...]]:
        """Greedy actions in evaluation mode, with states that stay on the device.

        :param observation: of each of N environments
        :param states: (layers, N, units) each
        :param episode_starts: (N,) bool, where the memory begins anew
        :param with_arrays: whether the new states are wanted as arrays too
        :param greedy: stands for the method of that name
        :return: (N,) int64, the new states, and these as arrays
        """
        parts, _ = self._as_arrays(observation)
        moved = to_device({**parts, "starts": np.asarray(episode_starts, dtype=bool)}, self.device)
        starts = moved.pop("starts")
        actions, *new_states = (greedy or self.greedy)(self._observation_of(moved), states, starts)
        told, *arrays = to_host([actions, *new_states] if with_arrays else [actions])
        return told, tuple(new_states), tuple(arrays)

    @torch.no_grad()
    def greedy(self, obs: PyTorchObs, states: States, episode_starts: torch.Tensor) -> list[torch.Tensor]:
        """`forward` in evaluation mode, for BatchNorm and dropout: actions, and the parts of the new states."""
        self.set_training_mode(False)
        actions, new_states = self(obs, states, episode_starts)
        return [actions, *new_states]

    def _check_states(self, states: tuple[np.ndarray, ...], n_envs: int) -> None:
        parts, layers, units = self.q_net.rnn.state_shape
        expected = [(layers, n_envs, units)] * parts
        if [part.shape for part in states] != expected:
            raise ValueError(
                f"The recurrent state must be arrays of shapes {expected} (layers, environments, units), "
                f"got {[part.shape for part in states]}."
            )

    def set_training_mode(self, mode: bool) -> None:
        """Put the online network into training or evaluation mode; the target network stays in evaluation mode.

        :param mode: true for training
        """
        # Walking through all modules takes a while, and acting asks for it at every step.
        if self.q_net.training != mode:
            self.q_net.set_training_mode(mode)
        self.training = mode

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            **super()._get_constructor_parameters(),
            **self.net_args,
            **self.value_args,
            "weight_decay": self.weight_decay,
            "act_with_target": self.act_with_target,
            "ortho_init": self.ortho_init,
            "lr_schedule": self._dummy_schedule,
            "features_extractor_class": self.features_extractor_class,
            "features_extractor_kwargs": self.features_extractor_kwargs,
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
        }


class CnnLstmMixin(RecurrentQPolicy):
    """Images: NatureCNN unless another features extractor is given."""

    default_extractor = NatureCNN


class MultiInputLstmMixin(RecurrentQPolicy):
    """Dicts of observations: CombinedExtractor unless another features extractor is given."""

    default_extractor = CombinedExtractor


class PermaKeyMixin(MultiInputLstmMixin):
    """Keypoint observations of PermaKeyObservation: one of `KEYPOINT_ENCODERS` unless another extractor is given."""

    default_keypoint_encoder: ClassVar[KeypointEncoder] = "gnn"

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        *,
        keypoint_encoder: KeypointEncoder | None = None,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        **kwargs: Any,
    ) -> None:
        keypoint_encoder = keypoint_encoder or self.default_keypoint_encoder
        if keypoint_encoder not in KEYPOINT_ENCODERS:
            raise ValueError(f"keypoint_encoder must be one of {sorted(KEYPOINT_ENCODERS)}, got {keypoint_encoder!r}.")
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            features_extractor_class=features_extractor_class or KEYPOINT_ENCODERS[keypoint_encoder],
            **kwargs,
        )


def hidden_units(net_arch: Any) -> list[int]:
    """Units of the hidden layers.

    :param net_arch: a list of them, None for none
    :raises ValueError: if it is something else
    """
    units = [] if net_arch is None else net_arch
    if not (isinstance(units, list | tuple) and all(isinstance(number, Integral) for number in units)):
        raise ValueError(
            f"net_arch must be a list of layers' units, such as [64, 64], got {net_arch!r}: a Q-network has no layers "
            "of a policy and a value function apart."
        )
    return [int(number) for number in units]


def _check_entries(space: spaces.Space, observation: dict[str, np.ndarray]) -> None:
    """Raise ValueError unless a dict of observations has the space's entries, of its shapes but for images' layout."""
    entries = space.spaces if isinstance(space, spaces.Dict) else {}
    if entries.keys() != observation.keys():
        raise ValueError(
            f"The agent observes {', '.join(sorted(entries)) or space}, but the observation has "
            f"{', '.join(sorted(observation))}."
        )
    for key, part in entries.items():
        shape = part.shape or ()
        found = np.shape(observation[key])
        if isinstance(part, spaces.Box) and not is_image_space(part) and found[len(found) - len(shape) :] != shape:
            raise ValueError(f"The agent observes {key} of shape {shape}, but the observation has {found}.")
