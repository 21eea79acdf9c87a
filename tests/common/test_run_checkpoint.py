import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from device_option import DEVICE
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_permakey import RecurrentDQN, RecurrentQRDQN
from sb3_permakey.common.run_checkpoint import (
    RunCheckpoint,
    RunCheckpointError,
    has_run,
    load_run,
    save_run,
    saved_steps,
    seed_of_resumed_run,
)
from sb3_permakey.files import InUseError, WriteError, locked_folder

SMALL = {
    "learning_starts": 20,
    "buffer_size": 150,
    "batch_size": 4,
    "sequence_length": 4,
    "train_freq": 2,
    "policy_kwargs": {"lstm_hidden_size": 8},
    "device": DEVICE,
}
R2D2_PARTS = {"burn_in": 2, "recurrent_state": "stored", "prioritized_replay": True}


def make_env(n_envs=2):
    return DummyVecEnv([lambda: gym.make("CartPole-v1")] * n_envs)


def make_model(agent=RecurrentDQN, env=None, **kwargs):
    return agent("MlpLstmPolicy", env or make_env(), seed=0, **{**SMALL, **kwargs})


def draws(model):
    """What the generators give next."""
    return [random.random(), np.random.random(), torch.rand(1).item(), *(model.action_space.sample() for _ in range(9))]


@pytest.mark.parametrize("agent", [RecurrentDQN, RecurrentQRDQN])
@pytest.mark.parametrize(("steps", "options"), [(60, {}), (400, R2D2_PARTS)])
def test_everything_is_as_it_was(agent, steps, options, tmp_path):
    model = make_model(agent, **options).learn(steps)
    save_run(model, tmp_path)
    expected = draws(model)
    loaded = load_run(agent, tmp_path, make_env(), device=DEVICE)
    assert draws(loaded) == expected
    for one, other in ((model.policy, loaded.policy), (model.policy.optimizer, loaded.policy.optimizer)):
        torch.testing.assert_close(other.state_dict(), one.state_dict(), rtol=0, atol=0)
    assert (loaded.num_timesteps, loaded._n_updates, loaded._episode_num) == (
        model.num_timesteps,
        model._n_updates,
        model._episode_num,
    )
    contents, restored = model.replay_buffer.contents(), loaded.replay_buffer.contents()
    assert set(contents) == set(restored)
    for name, array in contents.items():
        np.testing.assert_array_equal(restored[name], array)
    np.random.seed(5)
    samples = model.replay_buffer.sample(20)
    np.random.seed(5)
    again = loaded.replay_buffer.sample(20)
    assert torch.equal(samples.observations, again.observations)
    assert torch.equal(samples.weights, again.weights)


def test_schedules_go_on(tmp_path):
    class Watch(BaseCallback):
        def _on_step(self):
            rates[self.num_timesteps] = self.model.exploration_rate
            return self.num_timesteps < self.stop

    def learn(model, steps, stop):
        watch = Watch()
        watch.stop = stop
        model.learn(steps, [watch, RunCheckpoint(tmp_path, 40)], reset_num_timesteps=not model.num_timesteps)

    rates = {}
    learn(make_model(exploration_final_eps=0.0), 200, 10_000)
    whole, rates = rates, {}
    learn(make_model(exploration_final_eps=0.0), 200, 110)
    resumed = load_run(RecurrentDQN, tmp_path, make_env(), device=DEVICE)
    assert resumed.num_timesteps == 80
    learn(resumed, 200 - 80, 10_000)
    assert rates == pytest.approx(whole)


def test_only_the_newest_is_kept_and_its_files_come_back(tmp_path):
    log = tmp_path / "log.txt"
    other = tmp_path / "other.txt"
    folder = tmp_path / "run"
    assert not has_run(folder)
    model = make_model()
    model.learn(40, RunCheckpoint(folder, 40, files=(log, other)))
    log.write_text("first")
    save_run(model, folder, (log, other))
    model.learn(44, reset_num_timesteps=False)
    save_run(model, folder, (log, other))
    assert [path.name for path in folder.iterdir()] == ["steps-000000084"]
    save_run(model, folder, (log, other))
    assert [path.name for path in folder.iterdir()] == ["steps-000000084-again"]
    log.write_text("later")
    other.write_text("later")
    load_run(RecurrentDQN, folder, make_env(), files=(log, other), device=DEVICE)
    assert log.read_text() == "first"
    assert not other.exists()


def test_normalisation_comes_back(tmp_path):
    model = make_model(env=VecNormalize(make_env())).learn(60)
    save_run(model, tmp_path)
    env = VecNormalize(make_env())
    load_run(RecurrentDQN, tmp_path, env, device=DEVICE)
    np.testing.assert_array_equal(env.obs_rms.mean, model.env.obs_rms.mean)
    np.testing.assert_array_equal(env.ret_rms.var, model.env.ret_rms.var)
    assert env.obs_rms.count == model.env.obs_rms.count > 60


def test_resumed_runs_have_seeds_of_their_own(tmp_path, monkeypatch):
    """Never those of validation and test, which start at one million and at two, nor another run's."""
    drawn = {
        seed_of_resumed_run(seed, steps)
        for seed in (*range(10), 999_999)
        for steps in (10_000, 20_000, 1_000_000, 2_000_000, 10**9)
    }
    assert len(drawn) == 55
    assert min(drawn) > 4_000_000
    assert max(drawn) + 1000 < 2**31
    save_run(make_model().learn(40), tmp_path)
    seeds = []
    monkeypatch.setattr(DummyVecEnv, "seed", lambda self, seed=None: seeds.append(seed))
    load_run(RecurrentDQN, tmp_path, make_env(), device=DEVICE)
    assert seeds[-1] == seed_of_resumed_run(0, 40)


def test_an_environment_may_be_named_as_for_the_agent_itself(tmp_path):
    save_run(make_model(env=make_env(1)).learn(40), tmp_path)
    assert saved_steps(tmp_path) == 40
    assert saved_steps(tmp_path / "nothing") == 0
    assert load_run(RecurrentDQN, tmp_path, "CartPole-v1", device=DEVICE).env.num_envs == 1
    with pytest.raises(gym.error.Error, match="CartPoles"):
        load_run(RecurrentDQN, tmp_path, "CartPoles-v1")
    (tmp_path / "steps-000000040" / "state.json").unlink()
    with pytest.raises(RunCheckpointError, match="steps-000000040 is no whole checkpoint of a run"):
        load_run(RecurrentDQN, tmp_path, "CartPole-v1")


def test_one_run_learns_in_a_folder_at_a_time(tmp_path):
    with locked_folder(tmp_path / "run"), pytest.raises(InUseError, match="another run is writing .*run: wait for"):
        make_model().learn(20, RunCheckpoint(tmp_path / "run", 10))
    assert not has_run(tmp_path / "run")

    class Interrupt(BaseCallback):
        def _on_step(self):
            raise KeyboardInterrupt

    model = make_model()
    with pytest.raises(KeyboardInterrupt):
        model.learn(20, [RunCheckpoint(tmp_path / "run", 10), Interrupt()])
    # The same process goes on.
    model.learn(20, RunCheckpoint(tmp_path / "run", 10))
    with locked_folder(tmp_path / "run"):
        pass


def test_what_does_not_fit_is_named(tmp_path):
    with pytest.raises(RunCheckpointError, match="holds no checkpoint of a run"):
        load_run(RecurrentDQN, tmp_path, make_env())
    with pytest.raises(ValueError, match="save_freq must be at least 1, got 0"):
        RunCheckpoint(tmp_path, 0)
    save_run(make_model().learn(40), tmp_path)
    with pytest.raises(
        RunCheckpointError, match="is a checkpoint of RecurrentDQN, version 1; needed is RecurrentQRDQN"
    ):
        load_run(RecurrentQRDQN, tmp_path, make_env())
    with pytest.raises(ValueError, match="75 slots of"):
        load_run(RecurrentDQN, tmp_path, make_env(1))
    with pytest.raises(ValueError, match="75 slots of.*expected are 50 of"):
        load_run(RecurrentDQN, tmp_path, make_env(), custom_objects={"buffer_size": 100})


def test_a_disk_that_is_full_leaves_the_older_checkpoint(tmp_path, monkeypatch):
    model = make_model().learn(40)
    save_run(model, tmp_path)
    model.learn(40, reset_num_timesteps=False)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(WriteError, match="No space left on device"):
        save_run(model, tmp_path)
    assert load_run(RecurrentDQN, tmp_path, make_env(), device=DEVICE).num_timesteps == 40


RUN = """
import sys
import gymnasium as gym
from sb3_permakey import RecurrentDQN
from sb3_permakey.common.run_checkpoint import RunCheckpoint, has_run, load_run
folder = sys.argv[1]
model = (
    load_run(RecurrentDQN, folder, gym.make("CartPole-v1"), device="cpu")
    if has_run(folder)
    else RecurrentDQN("MlpLstmPolicy", gym.make("CartPole-v1"), learning_starts=10, buffer_size=20_000, device="cpu")
)
print("from", model.num_timesteps, flush=True)
model.learn(1_000_000 - model.num_timesteps, RunCheckpoint(folder, 20), reset_num_timesteps=False)
"""


def test_a_run_that_is_killed_at_any_moment_goes_on(tmp_path):
    """Killed again and again, whatever it was doing; it never goes back, and never finds half a checkpoint."""
    reached = [0]
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        )
        reached.append(int(process.stdout.readline().split()[1]))
        # Also in the middle of writing one, whose folder ends in .part.
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not any(
            int(path.name[6:15]) >= reached[-1] + 60 for path in tmp_path.glob("steps-*")
        ):
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert reached[1] == 0
    assert reached[2] >= 40
    assert reached[3] >= reached[2] + 40
    assert load_run(RecurrentDQN, tmp_path, gym.make("CartPole-v1"), device=DEVICE).num_timesteps >= reached[3] + 40
