"""What others do with an agent's environments leaves no holes in its windows."""

import copy
import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
from counting_env import SMALL, VECTOR, CountingEnv, check_counting_windows, make_vec_env
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecMonitor, VecNormalize

from sb3_permakey import RecurrentDQN, RecurrentQRDQN
from sb3_permakey.common.environment_watch import EnvironmentWatch

pytestmark = pytest.mark.usefixtures("one_thread")
TOLD = "training environments were stepped or reset by others"


def every_window_is_whole(model):
    """Observations count the steps, so that each follows the one before by 1 wherever something was done."""
    check_counting_windows(model)


@pytest.mark.parametrize("agent", [RecurrentDQN, RecurrentQRDQN])
@pytest.mark.parametrize("how", ["the agent's own", "the one given", "the environment within"])
def test_an_evaluation_on_the_training_environment_between_learning(agent, how):
    """8 + 3 steps of learning in an episode of 5, an evaluation of one step, and more learning."""
    env = CountingEnv(VECTOR, length=5)
    given = DummyVecEnv([lambda: env])
    model = agent("MlpLstmPolicy", VecMonitor(given), **{**SMALL, "recurrent_state": "stored"}).learn(11)
    of_agent = {"the agent's own": model.get_env(), "the one given": given, "the environment within": env}[how]
    for _ in range(8):
        of_agent.reset()
        of_agent.step([0] if of_agent is not env else 0)
        with pytest.warns(UserWarning, match=TOLD):
            model.learn(4, reset_num_timesteps=False)
        every_window_is_whole(model)
    evaluate_policy(model, env, n_eval_episodes=1, warn=False)
    with pytest.warns(UserWarning, match=TOLD):
        model.learn(30, reset_num_timesteps=False)
    every_window_is_whole(model)


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("vec_env", [DummyVecEnv, SubprocVecEnv])
def test_an_evaluation_on_the_training_environments_within_learning(vec_env, normalized):
    env = vec_env([lambda length=length: CountingEnv(VECTOR, length) for length in (5, 7)])
    env = VecNormalize(env) if normalized else env
    model = RecurrentDQN("MlpLstmPolicy", env, **SMALL)
    evaluation = EvalCallback(env, n_eval_episodes=1, eval_freq=13, verbose=0, warn=False)
    with pytest.warns(UserWarning, match=TOLD):
        model.learn(240, evaluation)
    rings = model.replay_buffer
    samples = rings.sample(400)
    steps = samples.observations[..., 0].cpu().numpy()
    np.testing.assert_array_equal(np.diff(steps, axis=0), samples.acted[:-1].cpu().numpy())
    assert rings.size() > 150
    env.close()


def test_an_interrupt_within_learning():
    class Interrupted(CountingEnv):
        interrupt_at = 23
        total = 0

        def step(self, action):
            result = super().step(action)
            self.total += 1
            if self.total == self.interrupt_at:
                raise KeyboardInterrupt
            return result

    class InterruptedCallback(BaseCallback):
        def _on_step(self):
            if self.num_timesteps == 41:
                raise KeyboardInterrupt
            return True

    model = RecurrentDQN("MlpLstmPolicy", Interrupted(VECTOR, length=9), **SMALL)
    with pytest.raises(KeyboardInterrupt):
        model.learn(100)
    with pytest.raises(KeyboardInterrupt):
        model.learn(100, InterruptedCallback(), reset_num_timesteps=False)
    model.learn(40, reset_num_timesteps=False)
    samples = model.replay_buffer.sample(400)
    steps = samples.observations[..., 0].cpu().numpy()
    np.testing.assert_array_equal(np.diff(steps, axis=0), samples.acted[:-1].cpu().numpy())


def test_learning_alone_is_not_taken_for_others():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=f".*{TOLD}")
        model = RecurrentDQN("MlpLstmPolicy", make_vec_env(2), **SMALL).learn(41)
        for _ in range(3):
            evaluate_policy(model, Monitor(CountingEnv(VECTOR)), n_eval_episodes=2)
            model.learn(5, reset_num_timesteps=False)
        model.set_env(make_vec_env(2))
        model.learn(5, reset_num_timesteps=False)
        model.learn(5)
    every_window_is_whole(model)


def test_what_is_watched_stays_what_it_was():
    """Copies and pickles are of the class that can be imported, and step themselves alone."""
    env = gym.make("CartPole-v1")
    kind = type(env.unwrapped)
    watch = EnvironmentWatch(DummyVecEnv([lambda: env]))
    env.reset(seed=0)
    assert watch.touched
    watch.note()
    assert isinstance(env.unwrapped, kind)
    for other in (copy.deepcopy(env.unwrapped), pickle.loads(pickle.dumps(env.unwrapped))):
        assert type(other) is kind
        np.testing.assert_array_equal(other.state, env.unwrapped.state)
        other.step(1)
        assert not np.array_equal(other.state, env.unwrapped.state)
        assert not watch.touched
        again = EnvironmentWatch(DummyVecEnv([lambda other=other: other]))
        other.reset()
        assert again.touched
    watch.stepped.step([0])
    assert not watch.touched
