import numpy as np
import pytest
import torch
from counting_env import VECTOR, CountingEnv, make_model
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

pytestmark = pytest.mark.usefixtures("one_thread")


class StateSpy(BaseCallback):
    """Keeps the LSTM states from which each step was taken, and whether it began an episode."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def _on_training_start(self):
        real = self.model.policy.q_net.forward

        def forward(obs, lstm_states, episode_starts):
            q_values, new_states = real(obs, lstm_states, episode_starts)
            self.calls.append((obs.clone(), lstm_states[0].clone(), episode_starts.clone(), new_states[0].clone()))
            return q_values, new_states

        self.model.policy.q_net.forward = forward

    def _on_step(self):
        return True


@pytest.mark.parametrize("learning_starts", [20, 1000])
def test_acting_state_is_carried_on_and_reset_exactly_at_episode_starts(learning_starts):
    model = make_model(3, learning_starts=learning_starts, train_freq=1)
    spy = StateSpy()
    model.learn(3 * 40, spy)
    assert len(spy.calls) == 40
    n_starts = torch.zeros(3)
    for call, (obs, before, starts, _) in enumerate(spy.calls):
        np.testing.assert_array_equal(starts, obs[:, 0] == 0)
        n_starts += starts
        assert torch.equal(before, torch.zeros_like(before) if call == 0 else spy.calls[call - 1][3])
    assert n_starts.tolist() == [8, 6, 5]  # 40 steps in episodes of 5, 7 and 9
    model.learn(3)
    assert spy.calls[40][2].all()


def test_predict_resets_and_carries_the_state_as_told():
    model = make_model(2)
    obs = np.array([[1, 2], [3, 4]], np.float32)
    _, fresh = model.predict(obs, deterministic=True)
    _, second = model.predict(obs, fresh, deterministic=True)
    assert [part.shape for part in second] == [(1, 2, 8)] * 2
    assert not np.array_equal(fresh[0], second[0])
    _, mixed = model.predict(obs, fresh, episode_start=np.array([True, False]), deterministic=True)
    for part, fresh_part, second_part in zip(mixed, fresh, second, strict=True):
        np.testing.assert_allclose(part[:, 0], fresh_part[:, 0], atol=1e-6)
        np.testing.assert_allclose(part[:, 1], second_part[:, 1], atol=1e-6)


def test_predict_explores_for_each_environment_and_the_state_moves_on_all_the_same():
    model = make_model(2)
    obs = np.tile(np.array([[1, 2]], np.float32), (300, 1))
    greedy, greedy_state = model.predict(obs, deterministic=True)
    assert len(set(greedy)) == 1
    model.exploration_rate = 0.5
    actions, state = model.predict(obs)
    assert 0.5 < (actions == greedy).mean() < 0.8  # 1 - 0.5 * 2/3
    np.testing.assert_array_equal(state, greedy_state)
    one_action, one_state = model.predict(obs[0])
    assert one_action.shape == ()
    np.testing.assert_allclose(one_state[0], greedy_state[0][:, :1], atol=1e-6)


def test_training_state_is_untouched_by_predict_and_evaluation():
    model = make_model().learn(31)
    before = model._last_lstm_states
    mean_reward, _ = evaluate_policy(model, Monitor(CountingEnv(VECTOR)), n_eval_episodes=3)
    assert 0 <= mean_reward <= 14
    assert model._last_lstm_states is before


def test_stored_states_are_those_that_acting_saw():
    """Acting again through an episode with frozen weights gives the states that the buffer kept."""
    model = make_model(2, recurrent_state="stored", learning_starts=1000).learn(40)
    buffer = model.replay_buffer
    model.policy.set_training_mode(False)
    for env in range(2):
        states = model.q_net.initial_states(1)
        for slot in range(buffer._written[env]):
            starts = torch.tensor([slot == buffer._episode_first[env, slot]])
            got = torch.as_tensor(buffer._states[env, slot])
            kept = torch.stack(states).squeeze(2) * (~starts)
            torch.testing.assert_close(got, kept, atol=1e-6, rtol=1e-5)
            _, states = model.q_net(
                torch.as_tensor(buffer._observations.arrays()[None][env, slot]).unsqueeze(0), states, starts
            )
    assert got.abs().max() > 0
