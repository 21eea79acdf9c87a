import gymnasium as gym
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_permakey import (
    DistractorBars,
    PermaKeyObservation,
    PreviousActionReward,
    VecPermaKeyObservation,
    VecPreviousActionReward,
)
from sb3_permakey.envs.resizing import ResizeFrames, VecResizeFrames


def environment():
    return gym.make("CartPole-v1")


def test_each_wrapper_names_its_twin():
    """Before a checkpoint is looked for."""
    with pytest.raises(ValueError, match="VecPermaKeyObservation wraps vectorised .* got .*CartPole.*: use Perma"):
        VecPermaKeyObservation(environment(), "no.safetensors")
    with pytest.raises(ValueError, match="VecPreviousActionReward wraps vectorised .* got .*CartPole.*: use Previous"):
        VecPreviousActionReward(environment())
    with pytest.raises(ValueError, match="VecResizeFrames wraps vectorised .* got .*CartPole.*: use ResizeFrames"):
        VecResizeFrames(environment())
    vectorised = DummyVecEnv([environment])
    with pytest.raises(ValueError, match="got the vectorised DummyVecEnv: use VecPermaKeyObservation around it"):
        PermaKeyObservation(vectorised, "no.safetensors")
    with pytest.raises(ValueError, match="got the vectorised DummyVecEnv: use VecPreviousActionReward around it"):
        PreviousActionReward(vectorised)
    with pytest.raises(ValueError, match="got the vectorised DummyVecEnv: use VecResizeFrames around it"):
        ResizeFrames(vectorised)
    with pytest.raises(ValueError, match="got the vectorised DummyVecEnv: wrap each environment before"):
        DistractorBars(vectorised, "both")
    with pytest.raises(ValueError, match="PreviousActionReward wraps an environment of gymnasium, got 'CartPole-v1'"):
        PreviousActionReward("CartPole-v1")
