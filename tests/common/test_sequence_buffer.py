import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_permakey.common.sequence_buffer import SequenceReplayBuffer

BOX = spaces.Box(-np.inf, np.inf, (1,), np.float64)
ACTIONS = spaces.Discrete(1000)
EPISODE = 1000
"""The observations of an episode are numbered EPISODE * its number + step."""


def make_buffer(buffer_size=40, n_envs=1, observation_space=BOX, **kwargs):
    return SequenceReplayBuffer(
        buffer_size, observation_space, ACTIONS, device="cpu", n_envs=n_envs, **{"sequence_length": 4, **kwargs}
    )


class NumberedEpisodes:
    """Writes episodes of given lengths into a buffer, and remembers every step as {observation: facts}.

    An observation is the number of its episode times EPISODE plus the step in it, the reward is the observation + 0.5,
    the action is the step. Every second episode of an environment ends by a time limit.
    """

    def __init__(self, buffer, lengths):
        self.buffer = buffer
        self.lengths = [list(env_lengths) for env_lengths in lengths]
        self.episode = np.arange(buffer.n_envs) * 100
        self.step = np.zeros(buffer.n_envs, dtype=int)
        self.written = [[] for _ in range(buffer.n_envs)]
        self.ends = {}

    def number(self, steps):
        return (self.episode * EPISODE + steps).astype(float)

    def as_obs(self, numbers):
        return numbers[:, None]

    def write(self, n_steps):
        for _ in range(n_steps):
            obs, next_obs = self.number(self.step), self.number(self.step + 1)
            done = np.array([self.step[e] + 1 == self.lengths[e][0] for e in range(self.buffer.n_envs)])
            timed_out = done & (self.episode % 2 == 1)
            self.buffer.add(
                self.as_obs(obs),
                self.as_obs(next_obs),
                self.step.copy(),
                obs + 0.5,
                done,
                [{"TimeLimit.truncated": bool(flag)} for flag in timed_out],
            )
            for e in range(self.buffer.n_envs):
                self.written[e].append(obs[e])
                if done[e]:
                    self.ends[next_obs[e]] = "time limit" if timed_out[e] else "true end"
                    self.lengths[e].append(self.lengths[e].pop(0))
            self.episode = np.where(done, self.episode + 1, self.episode)
            self.step = np.where(done, 0, self.step + 1)
        return self


def check_windows(samples, ends, sequence_length, newest):
    """Every window counts up by one from state to state, stays in one episode, and tells its end right."""
    obs = samples.observations.squeeze(-1).numpy()
    for b in range(obs.shape[1]):
        acted = samples.acted[:, b].numpy()
        n_acted = int(acted.sum())
        assert n_acted >= 1
        assert acted[:n_acted].all(), "steps come first, padding last"
        states = obs[:, b]
        np.testing.assert_array_equal(states[: n_acted + 1], states[0] + np.arange(len(states))[: n_acted + 1])
        assert len(set(states // EPISODE)) == 1
        np.testing.assert_array_equal(samples.rewards[:n_acted, b].numpy(), np.float32(states[:n_acted] + 0.5))
        np.testing.assert_array_equal(samples.actions[:n_acted, b].numpy(), states[:n_acted] % EPISODE)
        np.testing.assert_array_equal(samples.mask[:, b].numpy(), acted[:sequence_length])
        terminated = samples.terminated[:, b].numpy()
        if n_acted < len(states):
            last = states[n_acted]
            assert (states[n_acted:] == last).all(), "the last state is the padding"
            assert last in ends or last in newest
            assert terminated[n_acted - 1] == (ends.get(last) == "true end")
            assert not terminated[: n_acted - 1].any()
            assert not terminated[n_acted:].any()
        else:
            assert terminated.sum() == (ends.get(states[-1] + 1) == "true end")


@pytest.mark.parametrize("seed", range(6))
def test_windows_stay_in_their_episodes_and_every_step_is_drawn(seed):
    rng = np.random.default_rng(seed)
    np.random.seed(seed)
    n_envs = int(rng.integers(1, 4))
    lengths = rng.integers(1, 14, size=(n_envs, 5))
    lengths[0, 2] = 70  # longer than the ring
    buffer = make_buffer(buffer_size=30 * n_envs, n_envs=n_envs)
    episodes = NumberedEpisodes(buffer, lengths)
    for _ in range(7):
        episodes.write(int(rng.integers(1, 35)))
        newest = set(episodes.number(episodes.step))
        samples = buffer.sample(1000)
        check_windows(samples, episodes.ends, 4, newest)

        drawn = set(samples.observations[:4].squeeze(-1)[samples.mask].tolist())
        kept = set()
        for env_steps in episodes.written:
            slots = []
            for number in env_steps:
                slots += [number, number + 1] if number + 1 in episodes.ends else [number]
            if env_steps[-1] + 1 not in episodes.ends:
                slots.append(env_steps[-1] + 1)
            kept |= set(slots[-30:]) & set(env_steps)
        assert drawn == kept
        assert buffer.size() == len(kept)


def test_windows_are_full_where_the_episode_is_long_enough():
    buffer = make_buffer()
    episodes = NumberedEpisodes(buffer, [[4, 9, 2]]).write(15)
    samples = buffer.sample(500)
    episode = samples.observations[0, :, 0] // EPISODE
    n_steps = samples.mask.sum(dim=0)
    assert set(episode.tolist()) == {0, 1, 2}
    assert (n_steps[episode == 2] == 2).all()
    assert (n_steps[episode != 2] == 4).all()
    assert episodes.ends == {4.0: "true end", EPISODE + 9.0: "time limit", 2 * EPISODE + 2.0: "true end"}


def test_first_steps_are_not_rare():
    np.random.seed(0)
    buffer = make_buffer(buffer_size=100)
    NumberedEpisodes(buffer, [[20]]).write(60)
    samples = buffer.sample(20_000)
    steps = samples.observations[:4].squeeze(-1)[samples.mask] % EPISODE
    share = np.bincount(steps.long().numpy(), minlength=20) / len(steps) * 20
    assert share.min() > 0.55  # the first and the last step: (4 + 3 + 2 + 1) / 16 of a step in the middle


def test_each_observation_is_stored_once():
    images = spaces.Box(0, 255, (3, 36, 36), np.uint8)
    buffer = make_buffer(buffer_size=64, n_envs=2, observation_space=images)
    held = sum(
        array.nbytes
        for value in vars(buffer).values()
        for array in (value.values() if isinstance(value, dict) else [value])
        if isinstance(array, np.ndarray) and array.dtype == np.uint8
    )
    assert held == 64 * 3 * 36 * 36
    assert len(pickle.dumps(buffer)) < 1.1 * held


def test_ten_steps_of_one_episode_take_eleven_slots():
    buffer = make_buffer(buffer_size=11)
    NumberedEpisodes(buffer, [[50]]).write(10)
    assert buffer.size() == 10
    assert buffer._written.tolist() == [11]
    assert sorted(buffer._observations[None].ravel()) == list(range(11))


def test_the_newest_state_of_a_running_episode_is_the_last_of_its_windows():
    buffer = make_buffer()
    NumberedEpisodes(buffer, [[50]]).write(2)
    samples = buffer.sample(20)
    for b in range(20):
        assert samples.observations[:, b, 0].tolist() == [0, 1, 2, 2, 2, 2, 2]
        assert samples.acted[:, b].tolist() == [True, True, False, False, False, False, False]


@pytest.mark.parametrize("n_envs", [1, 2])
def test_dict_and_discrete_observations_keep_shapes_and_types(n_envs):
    space = spaces.Dict(
        {"image": spaces.Box(0, 255, (2, 3), np.uint8), "keypoints": spaces.Box(-1, 1, (4, 2)), "n": spaces.Discrete(9)}
    )
    buffer = make_buffer(buffer_size=40, n_envs=n_envs, observation_space=space)

    def observe(step):
        return {
            "image": np.full((n_envs, 2, 3), step, np.uint8),
            "keypoints": np.full((n_envs, 4, 2), step / 10, np.float32),
            "n": np.full(n_envs, step),
        }

    for step in range(8):
        buffer.add(
            observe(step),
            observe(step + 1),
            np.zeros((n_envs, 1), int),
            np.zeros(n_envs),
            np.zeros(n_envs),
            [{}] * n_envs,
        )
    obs = buffer.sample(5).observations
    assert {key: (tuple(value.shape), value.dtype) for key, value in obs.items()} == {
        "image": ((7, 5, 2, 3), torch.uint8),
        "keypoints": ((7, 5, 4, 2), torch.float32),
        "n": ((7, 5, 1), torch.int64),
    }
    assert (obs["image"][:, :, 0, 0] == obs["n"][..., 0]).all()
    torch.testing.assert_close(obs["keypoints"][:, :, 3, 1], obs["n"][..., 0] / 10)


def test_discrete_observations():
    buffer = make_buffer(observation_space=spaces.Discrete(9), n_envs=2)
    for step in range(8):
        buffer.add(np.array([step] * 2), np.array([step + 1] * 2), np.zeros(2), np.zeros(2), np.zeros(2), [{}] * 2)
    assert buffer.sample(3).observations.shape == (7, 3, 1)


def test_a_pickled_buffer_goes_on():
    buffer = make_buffer(n_envs=2)
    episodes = NumberedEpisodes(buffer, [[5, 30], [7]]).write(12)
    copy = pickle.loads(pickle.dumps(buffer))
    np.random.seed(3)
    expected = buffer.sample(50)
    np.random.seed(3)
    for got, want in zip(copy.sample(50), expected, strict=True):
        assert torch.equal(got, want)
    episodes.buffer = copy
    episodes.write(25)
    check_windows(copy.sample(500), episodes.ends, 4, set(episodes.number(episodes.step)))
    assert buffer.size() < copy.size()


def test_closed_episodes_are_left_behind_as_at_a_time_limit():
    buffer = make_buffer()
    episodes = NumberedEpisodes(buffer, [[30]]).write(6)
    buffer.close_episodes()
    buffer.close_episodes()
    episodes.ends[6.0] = "time limit"
    episodes.episode, episodes.step = episodes.episode + 1, np.zeros(1, dtype=int)
    episodes.write(6)
    samples = buffer.sample(500)
    check_windows(samples, episodes.ends, 4, {EPISODE + 6.0})
    assert set(samples.observations[0, :, 0].tolist()) == {0, 1, 2, EPISODE, EPISODE + 1, EPISODE + 2}
    assert not samples.terminated.any()


def test_reset_forgets_everything():
    buffer = make_buffer()
    NumberedEpisodes(buffer, [[30]]).write(6)
    buffer.reset()
    assert buffer.size() == 0
    with pytest.raises(ValueError, match="no step is stored yet"):
        buffer.sample(1)


def test_samples_are_normalized_as_told():
    buffer = make_buffer()
    NumberedEpisodes(buffer, [[30]]).write(6)
    normalizer = SimpleNamespace(normalize_obs=lambda obs: obs / 2, normalize_reward=lambda reward: reward - 0.5)
    samples = buffer.sample(10, env=normalizer)
    acted = samples.acted
    torch.testing.assert_close(samples.observations[..., 0][acted] * 2, samples.rewards[acted].double())
    assert samples.rewards.dtype == torch.float32


def test_stored_observations_do_not_follow_the_arrays_they_came_from():
    buffer = make_buffer()
    obs, next_obs = np.zeros((1, 1)), np.ones((1, 1))
    buffer.add(obs, next_obs, np.zeros(1), np.zeros(1), np.zeros(1), [{}])
    obs += 9
    next_obs += 9
    assert set(buffer.sample(5).observations.unique().tolist()) == {0.0, 1.0}


def test_bad_arguments_are_refused_in_one_sentence():
    with pytest.raises(ValueError, match="already stored once"):
        make_buffer(optimize_memory_usage=True)
    with pytest.raises(ValueError, match="10 observations to each of 2 environments, but one window needs 11"):
        make_buffer(buffer_size=20, n_envs=2, sequence_length=8)
    with pytest.raises(ValueError, match="must be at least 1, got 0 and 3"):
        make_buffer(sequence_length=0)
    with pytest.raises(ValueError, match="Discrete actions only"):
        SequenceReplayBuffer(40, BOX, spaces.Box(-1, 1, (2,)))
    assert isinstance(make_buffer(), ReplayBuffer)
