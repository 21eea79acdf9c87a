"""Where replay keeps observations: in the host's memory, or on the device that learns from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_obs_shape
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.vec_env import VecNormalize

from sb3_permakey.keypoints.device import free_bytes
from sb3_permakey.keypoints.transfer import to_device

Parts = dict[str | None, np.ndarray]
"""Observations by the keys of their Dict space; by None where they are no dict."""

AUTO_SHARE = 0.5
"""Of a GPU's free memory so much may go to replay where nothing else is said."""
NORMALIZED = "replay_device must be 'cpu' where VecNormalize normalises observations (norm_obs=True) on the host."


class KeptObservations(Protocol):
    """Observations of rings of slots, one for each environment; slots are counted over all environments."""

    def arrays(self) -> Parts:
        """Everything kept, (n_envs, slots of a ring, *shape) each."""

    def put(self, arrays: Parts, newest: np.ndarray) -> None:
        """Keep others in place of everything.

        :param arrays: (n_envs, slots of a ring, *shape) each
        :param newest: (n_envs,) the slot that was written last in each ring
        """

    def write(self, slots: np.ndarray, values: Parts) -> None:
        """Keep observations (k, *shape) in slots (k,), of which no two are of one environment."""

    def newest(self, slots: np.ndarray) -> Parts:
        """What was written last in some environments' rings (k, *shape), which is in these slots (k,)."""

    def asked(self, slots: np.ndarray, normalizer: VecNormalize | None, name: str = "") -> dict[str, np.ndarray]:
        """What must go to the device for these slots' observations, with the rest of a batch.

        :param slots: of any shape, (T, B) for instance
        :param normalizer: normalises them where given
        :param name: which of a batch's observations they are
        """

    def given(self, moved: Mapping[str, torch.Tensor], name: str = "") -> PyTorchObs:
        """The observations on the device, (*shape of the slots, *shape), from what `asked` gave and was moved there."""


class HostObservations:
    """In the host's memory, from where each batch is copied.

    :param arrays: (n_envs, slots of a ring, *shape) each, which are written into
    """

    def __init__(self, arrays: Parts) -> None:
        self._arrays = arrays

    def arrays(self) -> Parts:
        """Everything kept."""
        return self._arrays

    def put(self, arrays: Parts, newest: np.ndarray) -> None:
        """Keep others in place of everything, to be written into."""
        self._arrays = arrays

    def write(self, slots: np.ndarray, values: Parts) -> None:
        """Keep observations in slots."""
        for key, array in self._arrays.items():
            _flat(array)[slots] = values[key]

    def newest(self, slots: np.ndarray) -> Parts:
        """What is in these slots."""
        return {key: _flat(array)[slots] for key, array in self._arrays.items()}

    def asked(self, slots: np.ndarray, normalizer: VecNormalize | None, name: str = "") -> dict[str, np.ndarray]:
        """The observations themselves, normalised."""
        parts = {key: _flat(array).take(slots, axis=0) for key, array in self._arrays.items()}
        if normalizer is not None:
            normalized = normalizer.normalize_obs(parts.get(None, parts))  # type: ignore[arg-type]
            parts = normalized if isinstance(normalized, dict) else {None: normalized}  # type: ignore[assignment]
        return {_named(name, key): values for key, values in parts.items()}

    def given(self, moved: Mapping[str, torch.Tensor], name: str = "") -> PyTorchObs:
        """The observations, which were moved."""
        return _as_space({key: moved[_named(name, key)] for key in self._arrays})


class DeviceObservations:
    """On the device that learns from them: slots go there, and it gathers a batch itself.

    :param arrays: (n_envs, slots of a ring, *shape) each, which are copied; float64 becomes float32, as in all batches
    :param newest: (n_envs,) the slot that was written last in each ring
    :param device: where they are kept
    """

    def __init__(self, arrays: Parts, newest: np.ndarray, device: torch.device) -> None:
        self._device = device
        self.put(arrays, newest)

    def put(self, arrays: Parts, newest: np.ndarray) -> None:
        """Keep others in place of everything, copied to the device."""
        singles = {key: _single(array) for key, array in arrays.items()}
        self._ring_slots = next(iter(arrays.values())).shape[1]
        self._newest = {key: _flat(array)[newest] for key, array in singles.items()}
        self._types = {key: torch.from_numpy(rows).dtype for key, rows in self._newest.items()}
        # As bytes, since torch gathers no numbers of some types, such as uint16.
        self._rings = {key: torch.from_numpy(_bytes(_flat(array))).to(self._device) for key, array in singles.items()}

    def arrays(self) -> Parts:
        """Everything kept, copied to the host."""
        return {
            key: ring.cpu().numpy().view(rows.dtype).reshape(len(rows), self._ring_slots, *rows.shape[1:])
            for (key, rows), ring in zip(self._newest.items(), self._rings.values(), strict=True)
        }

    def write(self, slots: np.ndarray, values: Parts) -> None:
        """Keep observations in slots, by one copy to the device."""
        if not len(slots):
            return
        rows = {"slots": slots}
        for key, newest in self._newest.items():
            newest[slots // self._ring_slots] = values[key]
            rows[_named("", key)] = _bytes(values[key].astype(newest.dtype))
        moved = to_device(rows, self._device)
        for key, ring in self._rings.items():
            ring.index_copy_(0, moved["slots"], moved[_named("", key)])

    def newest(self, slots: np.ndarray) -> Parts:
        """What was written last, which the host remembers."""
        return {key: rows[slots // self._ring_slots] for key, rows in self._newest.items()}

    def asked(self, slots: np.ndarray, normalizer: VecNormalize | None, name: str = "") -> dict[str, np.ndarray]:
        """The slots.

        :raises ValueError: if a normalizer changes observations
        """
        if normalizer is not None and normalizer.norm_obs:
            raise ValueError(NORMALIZED)
        return {f"{name}slots": slots}

    def given(self, moved: Mapping[str, torch.Tensor], name: str = "") -> PyTorchObs:
        """The observations in slots that were moved."""
        slots = moved[f"{name}slots"]
        return _as_space(
            {
                key: ring.index_select(0, slots.reshape(-1))
                .view(self._types[key])
                .view(*slots.shape, *self._newest[key].shape[1:])
                for key, ring in self._rings.items()
            }
        )


def empty_rings(space: spaces.Space, ring: tuple[int, int]) -> Parts:
    """Rings for observations in their own types.

    :param space: anything SB3 preprocesses
    :param ring: (n_envs, slots)
    """
    parts: Any = space.spaces if isinstance(space, spaces.Dict) else {None: space}
    return {key: np.zeros(ring + shape, dtype=parts[key].dtype) for key, shape in _shapes(get_obs_shape(space)).items()}


def in_own_shapes(obs: np.ndarray | dict[str, np.ndarray], obs_shape: Any, n_envs: int) -> Parts:
    """The observations of all environments, (n_envs, *shape in the ring) each.

    :param obs: as environments give them
    :param obs_shape: as SB3 has it, of one environment
    :param n_envs: number of environments
    :raises ValueError: if they have another shape
    """
    parts: Parts = {}
    for key, own in _shapes(obs_shape).items():
        values, shape = np.asarray(obs if key is None else obs[key]), (n_envs, *own)
        # Discrete observations come without the axis that SB3 stores them with.
        if [size for size in values.shape if size != 1] != [size for size in shape if size != 1]:
            name = "observations" if key is None else f"observations {key!r}"
            raise ValueError(f"The {name} must have the shape {shape} (environments first), got {values.shape}.")
        parts[key] = values.reshape(shape)
    return parts


def kept_observations(
    arrays: Parts,
    newest: np.ndarray,
    replay_device: torch.device | str,
    device: torch.device,
    normalized: bool = False,
) -> KeptObservations:
    """Observations kept where an agent says.

    :param arrays: (n_envs, slots of a ring, *shape) each
    :param newest: (n_envs,) the slot that was written last in each ring
    :param replay_device: "cpu": in the host's memory; "auto": on a GPU that learns if they take no more than half of
        its free memory; or the name of the device that learns, which a CPU ignores
    :param device: that learns
    :param normalized: whether the host normalises them for each batch
    :raises ValueError: if replay_device is none of these, or they do not fit
    """
    needed_bytes = sum(array.nbytes for array in arrays.values())
    if _keeps_on_device(replay_device, device, needed_bytes, normalized):
        return DeviceObservations(arrays, newest, device)
    return HostObservations(arrays)


def _keeps_on_device(
    replay_device: torch.device | str, device: torch.device, needed_bytes: int, normalized: bool
) -> bool:
    free = free_bytes(device)
    if replay_device == "auto":
        return free is not None and needed_bytes <= AUTO_SHARE * free and not normalized
    known = f"replay_device must be 'cpu', 'auto' or the agent's device, {device}, not {str(replay_device)!r}."
    try:
        place = torch.device(replay_device)
    except RuntimeError as error:
        raise ValueError(known) from error
    if "cpu" in (place.type, device.type):
        return False
    if place.type != device.type or (None not in (place.index, device.index) and place.index != device.index):
        raise ValueError(known)
    if normalized:
        raise ValueError(NORMALIZED)
    if free is not None and needed_bytes > free:
        raise ValueError(
            f"The replay buffer's observations take {needed_bytes / 1e9:.1f} GB and {device} has {free / 1e9:.1f} GB "
            f"free: choose a smaller buffer_size, or replay_device='cpu', not {str(replay_device)!r}."
        )
    return True


def _flat(array: np.ndarray) -> np.ndarray:
    """(n_envs * slots, *shape), a view."""
    return array.reshape(-1, *array.shape[2:])


def _shapes(obs_shape: Any) -> dict[str | None, tuple[int, ...]]:
    """SB3's shape of observations, by keys."""
    return obs_shape if isinstance(obs_shape, dict) else {None: obs_shape}


def _single(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _bytes(rows: np.ndarray) -> np.ndarray:
    """(k, bytes of a row) of rows (k, *shape)."""
    return np.ascontiguousarray(rows).reshape(len(rows), -1).view(np.uint8)


def _named(name: str, key: str | None) -> str:
    return f"{name}observation.{key or ''}"


def _as_space(parts: dict[str | None, torch.Tensor]) -> PyTorchObs:
    """A dict, or the only one of these."""
    return parts[None] if None in parts else {str(key): part for key, part in parts.items()}
