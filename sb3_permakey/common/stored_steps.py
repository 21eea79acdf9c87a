"""What replay keeps of a step of vectorised environments, so that learning sees what acting saw."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize

from sb3_permakey.envs.episode_ends import LAST

Observations = np.ndarray | dict[str, np.ndarray]
"""(N, *observation shape), or a dict of these."""


def require_finite(obs: Observations, rewards: np.ndarray) -> None:
    """Raise ValueError where an observation or a reward is NaN or infinite, before it reaches the replay buffer."""
    parts = obs.items() if isinstance(obs, dict) else [("observation", obs)]
    for name, values in [*parts, ("reward", rewards)]:
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            raise ValueError(f"The environment returned a {name} that is NaN or infinite.")


def before_normalization(obs: Observations, normalizer: VecNormalize | None) -> Observations:
    """What replay keeps of the observations that acting sees: where they are normalised, what they were before.

    :param obs: as acting sees them, behind all wrappers
    :param normalizer: the one among the wrappers that normalises, if any
    """
    # Copies: some vectorised environments write the next observations into the same arrays.
    if normalizer is None or not normalizer.norm_obs:
        return {key: part.copy() for key, part in obs.items()} if isinstance(obs, dict) else obs.copy()
    originals = normalizer.get_original_obs()
    if not isinstance(obs, dict) or not isinstance(originals, dict):
        return originals
    normalized = normalizer.norm_obs_keys or []
    return {key: (originals if key in normalized and key in originals else obs)[key].copy() for key in obs}


def rewards_before_normalization(rewards: np.ndarray, env: VecEnv, normalizer: VecNormalize | None) -> np.ndarray:
    """What replay keeps of rewards: where they are normalised, what they were before.

    :param rewards: (N,) as they come from all wrappers
    :param env: the environments with all wrappers
    :param normalizer: the one of these that normalises, if any
    :raises ValueError: if a wrapper around it changes them, which replay cannot repeat
    """
    if normalizer is None or not normalizer.norm_reward:
        return rewards
    originals = normalizer.get_original_reward()
    if not np.allclose(rewards, normalizer.normalize_reward(originals), rtol=1e-4, atol=1e-5):
        raise ValueError(_wrong_order(env, normalizer, "rewards"))
    return originals


def last_observations(
    originals: Observations,
    before: Observations,
    dones: np.ndarray,
    infos: list[dict[str, Any]],
    normalizer: VecNormalize | None,
) -> Observations:
    """The observations that followed a step, before normalisation: an episode's true last one where it ended.

    Vectorised environments of other makers do not all tell it, and the next episode's first would then be taken, from
    which a value after a time limit would be made. The observation before is taken instead: it is one step away.

    :param originals: the observations after the step, of the next episode where one ended, before normalisation
    :param before: those that the step was taken from, before normalisation
    :param dones: (N,), which episodes ended with the step
    :param infos: of the step
    :param normalizer: what normalises, if anything
    """
    over = np.flatnonzero(dones)
    if not len(over):
        return originals
    parts = {key: part.copy() for key, part in originals.items()} if isinstance(originals, dict) else originals.copy()
    for index in over:
        last = infos[index].get(LAST)
        if last is None:
            last = {key: part[index] for key, part in before.items()} if isinstance(before, dict) else before[index]
        elif normalizer is not None:
            last = normalizer.unnormalize_obs(last)
        if isinstance(parts, dict):
            for key, part in parts.items():
                part[index] = last[key]
        else:
            parts[index] = last
    return parts


def require_same_observations(obs: Observations, env: VecEnv, normalizer: VecNormalize | None) -> None:
    """Raise ValueError unless normalising what replay keeps gives what acting sees.

    :param obs: as acting sees them, behind all wrappers, after the step or reset just made
    :param env: the environments with all wrappers
    :param normalizer: the one of these that normalises, if any
    """
    if normalizer is None or not normalizer.norm_obs:
        return
    repeated = normalizer.normalize_obs(normalizer.get_original_obs())
    seen = obs if isinstance(obs, dict) else {"": obs}
    repeated = repeated if isinstance(repeated, dict) else {"": repeated}
    for key in normalizer.norm_obs_keys or [""]:
        there = key in seen and key in repeated and seen[key].shape == repeated[key].shape
        if not there or not np.allclose(seen[key], repeated[key], rtol=1e-4, atol=1e-5):
            raise ValueError(_wrong_order(env, normalizer, "observations"))


def _wrong_order(env: VecEnv, normalizer: VecNormalize, what: str) -> str:
    """The sentence about wrappers around VecNormalize that change what it normalised."""
    names: list[str] = []
    while env is not normalizer and isinstance(env, VecEnvWrapper):
        names.insert(0, type(env).__name__)
        env = env.venv
    return (
        f"{' and '.join(names)} around VecNormalize changed the {what} that it had normalised, which replay cannot "
        "repeat: put VecNormalize around all of them."
    )
