import numpy as np
import pytest
from conftest import MovingSquare
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_permakey import RecurrentDQN, files
from sb3_permakey.files import WriteError
from sb3_permakey.training.validation import FIRST_VALIDATION_SEED, RandomActions, Validation, validation_scores


class Seeded(MovingSquare):
    """Writes down the seeds of its games and its actions."""

    seeds: list = []  # noqa: RUF012
    actions: list = []  # noqa: RUF012

    def reset(self, *, seed=None, options=None):
        Seeded.seeds.append(seed)
        return super().reset(seed=seed)

    def step(self, action):
        Seeded.actions.append(int(action))
        return super().step(action)


def seeded(count, length=6):
    Seeded.seeds, Seeded.actions = [], []
    return DummyVecEnv([lambda: Monitor(Seeded(length))] * count)


@pytest.fixture
def learn(tmp_path):
    """Learns from step to step of a run whose validation has two environments."""
    agent = RecurrentDQN(
        "CnnLstmPolicy",
        DummyVecEnv([lambda: Monitor(MovingSquare(6))]),
        learning_starts=1000,
        buffer_size=50,
        seed=0,
        policy_kwargs={"lstm_hidden_size": 4, "features_extractor_kwargs": {"features_dim": 4}},
    )

    def learn(steps):
        envs = seeded(2)
        agent.learn(
            steps, Validation(envs, tmp_path, every_steps=10, episodes=2), reset_num_timesteps=not agent.num_timesteps
        )
        return [seed for seed in Seeded.seeds if seed is not None]

    return learn


def test_every_validation_has_games_of_its_own_also_in_a_run_that_goes_on(learn, tmp_path):
    first = [FIRST_VALIDATION_SEED + number for number in range(8)]
    assert learn(20) == first[:4]
    assert [step for step, _ in validation_scores(tmp_path)] == [10, 20]
    assert learn(20) == first[4:]
    assert [step for step, _ in validation_scores(tmp_path)] == [10, 20, 30, 40]


def test_the_best_of_all_validations_is_kept(learn, tmp_path, monkeypatch):
    scores = iter([[5.0, 5.0], [9.0, 9.0], [7.0, 7.0], [8.0, 8.0]])
    monkeypatch.setattr(
        "sb3_permakey.training.validation.evaluate_policy", lambda *args, **kwargs: (next(scores), [5, 5])
    )
    learn(30)
    learn(10)
    assert RecurrentDQN.load(tmp_path / "best_model.zip").num_timesteps == 20
    assert validation_scores(tmp_path) == [(10, 5.0), (20, 9.0), (30, 7.0), (40, 8.0)]


def test_a_disk_that_is_full_leaves_the_older_files(learn, tmp_path, monkeypatch):
    scores = iter([[5.0, 5.0], [9.0, 9.0]])
    monkeypatch.setattr(
        "sb3_permakey.training.validation.evaluate_policy", lambda *args, **kwargs: (next(scores), [5, 5])
    )
    learn(10)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {"best_model.zip", "evaluations.npz"}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(WriteError, match="best_model.zip: No space left on device"):
        learn(10)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_some_actions_are_random_and_the_seed_decides_which():
    def actions(epsilon, seed):
        envs = RandomActions(seeded(2, length=500), epsilon)
        envs.seed(seed)
        envs.reset()
        for _ in range(400):
            envs.step(np.full(2, 2))
        return np.array(Seeded.actions)

    assert set(actions(0.0, 0)) == {2}
    # A third of the random actions is 2 as well.
    assert (actions(0.3, 0) != 2).mean() == pytest.approx(0.2, abs=0.05)
    np.testing.assert_array_equal(actions(0.3, 1), actions(0.3, 1))
    assert (actions(0.3, 1) != actions(0.3, 2)).any()
