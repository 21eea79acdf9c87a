"""Networks and policies of RecurrentDQN: features extractor -> LSTM -> Q head."""

from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel, BasePolicy
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    NatureCNN,
    create_mlp,
)
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import nn

from sb3_permakey.extractors import KeypointCNN, KeypointGNN

LstmStates = tuple[torch.Tensor, torch.Tensor]


class RecurrentQNetwork(BaseModel):
    """Q values from a history of observations: features extractor, LSTM, linear head (or an MLP).

    :param observation_space: observation space
    :param action_space: action space, whose actions are counted from 0
    :param features_extractor: observations (N, ...) to features (N, features_dim)
    :param features_dim: number of features
    :param net_arch: units of the hidden layers between LSTM and Q values; none by default, as in the paper
    :param activation_fn: activation of these layers
    :param normalize_images: whether images are divided by 255
    :param lstm_hidden_size: units of each LSTM layer
    :param n_lstm_layers: number of LSTM layers
    """

    features_extractor: BaseFeaturesExtractor
    action_space: spaces.Discrete

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
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            features_extractor=features_extractor,
            normalize_images=normalize_images,
        )
        self.lstm = nn.LSTM(features_dim, lstm_hidden_size, n_lstm_layers)
        self.head = nn.Sequential(
            *create_mlp(lstm_hidden_size, int(action_space.n), net_arch or [], activation_fn),
        )

    def forward(
        self, obs: PyTorchObs, lstm_states: LstmStates, episode_starts: torch.Tensor
    ) -> tuple[torch.Tensor, LstmStates]:
        """Q values of one step of N environments, and the LSTM states after it.

        :param obs: (N, *observation shape), or a dict of these
        :param lstm_states: hidden and cell state, (n_lstm_layers, N, lstm_hidden_size) each
        :param episode_starts: (N,) bool, where the state is set to zero first
        :return: (N, actions), and the new states
        """
        features = self.extract_features(obs, self.features_extractor)
        keep = (~episode_starts).to(features.dtype).reshape(1, -1, 1)
        hidden, cell = lstm_states
        output, new_states = self.lstm(features.unsqueeze(0), (hidden * keep, cell * keep))
        return self.head(output.squeeze(0)), new_states

    def window_q_values(self, obs: PyTorchObs) -> torch.Tensor:
        """Q values of every state of B windows of T steps, from a zero LSTM state at their beginnings.

        :param obs: (T, B, *observation shape), or a dict of these
        :return: (T, B, actions)
        """
        if isinstance(obs, dict):
            n_steps, n_windows = next(iter(obs.values())).shape[:2]
            flat_obs: PyTorchObs = {key: value.flatten(0, 1) for key, value in obs.items()}
        else:
            n_steps, n_windows = obs.shape[:2]
            flat_obs = obs.flatten(0, 1)
        features = self.extract_features(flat_obs, self.features_extractor)
        output, _ = self.lstm(features.reshape(n_steps, n_windows, -1))
        return self.head(output)


class RecurrentDQNPolicy(BasePolicy):
    """Online and target Q network with the optimizer of the online one.

    :param observation_space: observation space
    :param action_space: action space
    :param lr_schedule: learning rate schedule (may be constant)
    :param net_arch: units of the hidden layers between LSTM and Q values; none by default, as in the paper
    :param activation_fn: activation of these layers
    :param features_extractor_class: features extractor to use
    :param features_extractor_kwargs: its arguments besides the observation space
    :param normalize_images: whether images are divided by 255
    :param optimizer_class: optimizer, Adam by default
    :param optimizer_kwargs: its arguments besides the learning rate
    :param lstm_hidden_size: units of each LSTM layer
    :param n_lstm_layers: number of LSTM layers
    :raises ValueError: if the features extractor is not one for this kind of observation space
    """

    q_net: RecurrentQNetwork
    q_net_target: RecurrentQNetwork

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        net_arch: list[int] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        features_extractor_class: type[BaseFeaturesExtractor] = FlattenExtractor,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        lstm_hidden_size: int = 128,
        n_lstm_layers: int = 1,
    ) -> None:
        _check_extractor(observation_space, features_extractor_class)
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
            "net_arch": net_arch or [],
            "activation_fn": activation_fn,
            "lstm_hidden_size": lstm_hidden_size,
            "n_lstm_layers": n_lstm_layers,
        }
        self.q_net = self.make_q_net()
        self.q_net_target = self.make_q_net()
        self.q_net_target.load_state_dict(self.q_net.state_dict())
        self.q_net_target.set_training_mode(False)
        self.optimizer = self.optimizer_class(
            self.q_net.parameters(),
            lr=lr_schedule(1),  # type: ignore[call-arg]
            **self.optimizer_kwargs,
        )

    def make_q_net(self) -> RecurrentQNetwork:
        """Make a Q network with a features extractor of its own."""
        spaces_and_images = {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "normalize_images": self.normalize_images,
        }
        return RecurrentQNetwork(**self._update_features_extractor({**spaces_and_images, **self.net_args}))

    def forward(
        self, obs: PyTorchObs, lstm_states: LstmStates, episode_starts: torch.Tensor
    ) -> tuple[torch.Tensor, LstmStates]:
        """Greedy actions of one step of N environments, and the LSTM states after it.

        :param obs: (N, *observation shape), or a dict of these
        :param lstm_states: hidden and cell state, (n_lstm_layers, N, lstm_hidden_size) each
        :param episode_starts: (N,) bool, where the state is set to zero first
        :return: (N,) int64, and the new states
        """
        q_values, new_states = self.q_net(obs, lstm_states, episode_starts)
        return q_values.argmax(dim=1), new_states

    # BasePolicy's abstract method; here it also takes and returns LSTM states.
    _predict = forward  # type: ignore[assignment]

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Greedy actions and the LSTM state after them, called as RecurrentPPO's.

        :param observation: one observation, or one of each of n_envs environments
        :param state: hidden and cell state, (n_lstm_layers, n_envs, lstm_hidden_size) each; None for zeros
        :param episode_start: (n_envs,) where the state is set to zero first; None for nowhere
        :param deterministic: without effect, exploration is the agent's
        :return: the actions, and the new state
        :raises ValueError: if the state is not of that shape, or a (observation, info) pair is given
        """
        if isinstance(observation, tuple):
            raise ValueError("predict takes an observation, not the (observation, info) pair of gymnasium's reset().")
        # Evaluation mode, for BatchNorm and dropout.
        self.set_training_mode(False)
        obs, is_vectorized = self.obs_to_tensor(observation)
        n_envs = len(next(iter(obs.values())) if isinstance(obs, dict) else obs)
        state_shape = (self.q_net.lstm.num_layers, n_envs, self.q_net.lstm.hidden_size)
        if state is None:
            state = (np.zeros(state_shape, dtype=np.float32), np.zeros(state_shape, dtype=np.float32))
        if any(part.shape != state_shape for part in state):
            raise ValueError(
                f"The LSTM state must be two arrays of shape {state_shape} (layers, environments, units), "
                f"got {[part.shape for part in state]}."
            )
        if episode_start is None:
            episode_start = np.zeros(n_envs, dtype=bool)
        with torch.no_grad():
            hidden, cell = (torch.as_tensor(part, dtype=torch.float32, device=self.device) for part in state)
            episode_starts = torch.as_tensor(episode_start, dtype=torch.bool, device=self.device)
            actions, new_states = self(obs, (hidden, cell), episode_starts)
        actions = actions.cpu().numpy()
        return actions if is_vectorized else actions.squeeze(axis=0), tuple(part.cpu().numpy() for part in new_states)

    def set_training_mode(self, mode: bool) -> None:
        """Put the online network into training or evaluation mode; the target network stays in evaluation mode.

        :param mode: true for training
        """
        self.q_net.set_training_mode(mode)
        self.training = mode

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            **super()._get_constructor_parameters(),
            **self.net_args,
            "lr_schedule": self._dummy_schedule,
            "features_extractor_class": self.features_extractor_class,
            "features_extractor_kwargs": self.features_extractor_kwargs,
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
        }


MlpLstmPolicy = RecurrentDQNPolicy


class CnnLstmPolicy(RecurrentDQNPolicy):
    """RecurrentDQNPolicy for images: NatureCNN unless another features extractor is given.

    :param observation_space: observation space
    :param action_space: action space
    :param lr_schedule: learning rate schedule
    :param features_extractor_class: features extractor to use
    :param kwargs: the other arguments of RecurrentDQNPolicy
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        *,
        features_extractor_class: type[BaseFeaturesExtractor] = NatureCNN,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            observation_space, action_space, lr_schedule, features_extractor_class=features_extractor_class, **kwargs
        )


class MultiInputLstmPolicy(RecurrentDQNPolicy):
    """RecurrentDQNPolicy for dicts of observations: CombinedExtractor unless another features extractor is given.

    :param observation_space: observation space
    :param action_space: action space
    :param lr_schedule: learning rate schedule
    :param features_extractor_class: features extractor to use
    :param kwargs: the other arguments of RecurrentDQNPolicy
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        *,
        features_extractor_class: type[BaseFeaturesExtractor] = CombinedExtractor,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            observation_space, action_space, lr_schedule, features_extractor_class=features_extractor_class, **kwargs
        )


class PermaKeyPolicy(MultiInputLstmPolicy):
    """RecurrentDQNPolicy for the keypoint observations of PermaKeyObservation.

    :param observation_space: Dict with "keypoints" and "features", for the CNN encoder also "image"
    :param action_space: action space
    :param lr_schedule: learning rate schedule
    :param keypoint_encoder: "gnn" for KeypointGNN, "cnn" for KeypointCNN
    :param features_extractor_class: features extractor to use instead of these two
    :param kwargs: the other arguments of RecurrentDQNPolicy
    :raises ValueError: if the encoder is unknown, or (the encoder's own check) the observations lack what it needs
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        *,
        keypoint_encoder: Literal["gnn", "cnn"] = "gnn",
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        **kwargs: Any,
    ) -> None:
        encoders: dict[str, type[BaseFeaturesExtractor]] = {"gnn": KeypointGNN, "cnn": KeypointCNN}
        if keypoint_encoder not in encoders:
            raise ValueError(f"keypoint_encoder must be one of {sorted(encoders)}, got {keypoint_encoder!r}.")
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            features_extractor_class=features_extractor_class or encoders[keypoint_encoder],
            **kwargs,
        )


def _check_extractor(observation_space: spaces.Space, extractor: type[BaseFeaturesExtractor]) -> None:
    """Reject SB3's extractors for observations of the other kind, which they fail on with an unclear message."""
    is_dict = isinstance(observation_space, spaces.Dict)
    if is_dict and extractor in (FlattenExtractor, NatureCNN):
        raise ValueError(f"Dict observations need MultiInputLstmPolicy ({extractor.__name__} cannot read them).")
    if not is_dict and extractor is CombinedExtractor:
        raise ValueError(
            f"MultiInputLstmPolicy needs Dict observations, got {observation_space}: "
            "use MlpLstmPolicy or CnnLstmPolicy."
        )
