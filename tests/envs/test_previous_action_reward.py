import gymnasium as gym
import numpy as np
import pytest
from device_option import DEVICE
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper

from sb3_permakey import PreviousActionReward, RecurrentDQN, VecPreviousActionReward


class Countdown(gym.Env):
    """Three steps; the reward is the step's number."""

    action_space = spaces.Discrete(3)

    def __init__(self, as_dict=False):
        box = spaces.Box(0, 3, (2,))
        self.as_dict = as_dict
        self.observation_space = spaces.Dict({"place": box}) if as_dict else box

    def observe(self):
        place = np.full(2, self.count, np.float32)
        return {"place": place} if self.as_dict else place

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self.observe(), {}

    def step(self, action):
        self.count += 1
        return self.observe(), float(self.count), self.count == 3, False, {}


@pytest.mark.parametrize("as_dict", [False, True])
def test_the_step_before_is_observed(as_dict):
    env = PreviousActionReward(Countdown(as_dict))
    check_env(env, skip_render_check=True)
    key = "place" if as_dict else "observation"
    observation, _ = env.reset()
    assert observation["previous_action"].tolist() == [0, 0, 0]
    assert observation["previous_reward"].tolist() == [0]
    env.step(2)
    observation, *_ = env.step(1)
    assert observation["previous_action"].tolist() == [0, 1, 0]
    assert observation["previous_reward"].tolist() == [2]
    assert observation[key].tolist() == [2, 2]
    observation, _ = env.reset()
    assert observation["previous_action"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("as_dict", [False, True])
def test_vectorised_environments_observe_the_same(as_dict):
    venv = VecPreviousActionReward(DummyVecEnv([lambda: Countdown(as_dict)] * 2))
    single = DummyVecEnv([lambda: PreviousActionReward(Countdown(as_dict))] * 2)
    assert venv.observation_space == single.observation_space

    def check(one, other):
        assert set(one) == set(other)
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])

    check(venv.reset(), single.reset())
    for step in range(7):
        actions = np.array([step % 3, (step + 1) % 3])
        (got, _, dones, infos), (want, _, _, expected) = venv.step(actions), single.step(actions)
        check(got, want)
        if dones[0]:
            check(infos[0]["terminal_observation"], expected[0]["terminal_observation"])
            assert infos[0]["terminal_observation"]["previous_reward"].tolist() == [3]


class OtherMaker(VecEnvWrapper):
    """Ends are numbers and rewards doubles; no last observation is told."""

    def reset(self):
        return self.venv.reset()

    def step_wait(self):
        observations, rewards, dones, infos = self.venv.step_wait()
        return observations, rewards.astype(np.float64), dones.astype(np.int64), [{} for _ in infos]


def test_environments_of_other_makers_begin_with_nothing_before():
    class Longer(Countdown):
        def step(self, action):
            observation, reward, _, truncated, info = super().step(action)
            return observation, reward, self.count == 5, truncated, info

    venv = VecPreviousActionReward(OtherMaker(DummyVecEnv([Longer, Countdown])))
    venv.reset()
    for _ in range(3):
        observations, _, dones, infos = venv.step([1, 1])
    assert dones.tolist() == [0, 1]
    assert infos == [{}, {}]
    assert observations["previous_reward"].tolist() == [[3], [0]]
    assert observations["previous_action"].tolist() == [[0, 1, 0], [0, 0, 0]]


def test_an_agent_learns_with_it():
    env = PreviousActionReward(Countdown())
    model = RecurrentDQN("MultiInputLstmPolicy", env, learning_starts=10, buffer_size=100, device=DEVICE).learn(40)
    assert model.q_net.rnn.input_size == 2 + 3 + 1


def test_continuous_actions_are_refused():
    with pytest.raises(ValueError, match="where actions are Discrete"):
        PreviousActionReward(gym.make("Pendulum-v1"))
