"""Replay gives learning what acting saw, whatever wrappers there are, or says which order it needs."""

import numpy as np
import pytest
from counting_env import MIXED, SMALL, VECTOR, Noise, make_vec_env
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecEnvWrapper,
    VecFrameStack,
    VecNormalize,
    VecTransposeImage,
)

from sb3_permakey import RecurrentDQN
from sb3_permakey.envs.previous_action_reward import VecPreviousActionReward

pytestmark = pytest.mark.usefixtures("one_thread")


class Seen(BaseCallback):
    """The observations that the agent acts on, in their order."""

    def __init__(self):
        super().__init__()
        self.observations = []

    def _on_step(self):
        self.observations.append(self.locals["new_obs"])
        return True


def pixels(n_envs=1):
    space = spaces.Box(0, 255, (36, 40, 3), np.uint8)
    return DummyVecEnv([lambda: Noise(space)] * n_envs)


def mixed():
    return DummyVecEnv([lambda: Noise(spaces.Dict({"image": MIXED["image"], "vector": spaces.Box(-1, 1, (2,))}))])


WORK = {
    "rewards alone, images turned by the agent": ("CnnLstmPolicy", lambda: VecNormalize(pixels(), norm_obs=False)),
    "rewards alone, images turned before": (
        "CnnLstmPolicy",
        lambda: VecNormalize(VecTransposeImage(pixels()), norm_obs=False),
    ),
    "rewards alone, stacked after": (
        "CnnLstmPolicy",
        lambda: VecFrameStack(VecNormalize(pixels(), norm_obs=False), 2),
    ),
    "the vector beside images turned by the agent": (
        "MultiInputLstmPolicy",
        lambda: VecNormalize(mixed(), norm_obs_keys=["vector"]),
    ),
    "the vector, and a previous step added after": (
        "MultiInputLstmPolicy",
        lambda: VecPreviousActionReward(VecNormalize(mixed(), norm_obs_keys=["vector"])),
    ),
    "rewards alone, and a previous step added after": (
        "MultiInputLstmPolicy",
        lambda: VecPreviousActionReward(VecNormalize(make_vec_env(1), norm_obs=False)),
    ),
    "a stack": ("MlpLstmPolicy", lambda: VecNormalize(VecFrameStack(make_vec_env(1), 2))),
    "no normalisation": ("CnnLstmPolicy", pixels),
}


@pytest.mark.parametrize("name", WORK)
def test_replay_gives_what_acting_saw(name):
    policy, make_env = WORK[name]
    env = make_env()
    model = RecurrentDQN(policy, env, **SMALL)
    normalizer = model.get_vec_normalize_env()
    seen = Seen()
    model.learn(15, seen)
    if normalizer is not None:
        # So that what was normalised with other statistics can be compared.
        model = RecurrentDQN(policy, env, **SMALL)
        normalizer.training = False
        model.learn(15, seen := Seen())
    model.learn(12, reset_num_timesteps=False)
    windows = model.replay_buffer.sample(200, env=normalizer)
    states = windows.observations if isinstance(windows.observations, dict) else {"": windows.observations}
    acted = windows.acted.cpu().numpy()
    rows = {key: part.cpu().numpy()[acted].reshape(acted.sum(), -1) for key, part in states.items()}
    for observation in seen.observations[:10]:
        parts = observation if isinstance(observation, dict) else {"": observation}
        same = [np.isclose(rows[key], parts[key].reshape(1, -1), atol=1e-5).all(axis=1) for key in parts]
        assert np.all(same, axis=0).any(), name


class Halved(VecEnvWrapper):
    """Halves rewards."""

    def reset(self):
        return self.venv.reset()

    def step_wait(self):
        observations, rewards, dones, infos = self.venv.step_wait()
        return observations, rewards / 2, dones, infos


@pytest.mark.parametrize(
    ("policy", "make_env", "sentence"),
    [
        (
            "MlpLstmPolicy",
            lambda: VecFrameStack(VecNormalize(make_vec_env(1)), 2),
            "VecFrameStack around VecNormalize changed the observations",
        ),
        (
            "MultiInputLstmPolicy",
            lambda: VecPreviousActionReward(VecNormalize(make_vec_env(1))),
            "VecPreviousActionReward around VecNormalize changed the observations",
        ),
        (
            "MlpLstmPolicy",
            lambda: Halved(VecNormalize(DummyVecEnv([lambda: Noise(VECTOR)]))),
            "Halved around VecNormalize changed the rewards",
        ),
    ],
)
def test_an_order_that_replay_cannot_repeat_is_told_before_anything_is_learned(policy, make_env, sentence):
    model = RecurrentDQN(policy, make_env(), **SMALL)
    with pytest.raises(ValueError, match=f"{sentence} that it had normalised.*put VecNormalize around all of them"):
        model.learn(30)
    assert model._n_updates == 0
    assert model.replay_buffer.size() == 0


def test_a_last_observation_that_is_not_told_is_the_one_before():
    class Silent(VecEnvWrapper):
        def reset(self):
            return self.venv.reset()

        def step_wait(self):
            observations, rewards, dones, infos = self.venv.step_wait()
            infos = [{k: v for k, v in info.items() if k != "terminal_observation"} for info in infos]
            return observations, rewards, dones, infos

    model = RecurrentDQN("MlpLstmPolicy", Silent(make_vec_env(1)), **SMALL).learn(12)
    # Episodes of 5 steps: 0 1 2 3 4, and 4 again in place of 5.
    assert model.replay_buffer._observations.arrays()[None][0, :8, 0].tolist() == [0, 1, 2, 3, 4, 4, 0, 1]


def test_environments_that_write_into_the_same_arrays():
    class Reused(VecEnvWrapper):
        def reset(self):
            self.given = self.venv.reset()
            return self.given

        def step_wait(self):
            observations, *rest = self.venv.step_wait()
            self.given[:] = observations
            return self.given, *rest

    model = RecurrentDQN("MlpLstmPolicy", Reused(make_vec_env(1)), **SMALL).learn(12)
    assert model.replay_buffer._observations.arrays()[None][0, :8, 0].tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
