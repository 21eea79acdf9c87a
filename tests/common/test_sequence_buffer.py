import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from device_option import DEVICE
from gymnasium import spaces
from numbered_episodes import ACTIONS, BOX, EPISODE, NumberedEpisodes, check_windows
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_permakey.common.sequence_buffer import SequenceReplayBuffer


def make_buffer(buffer_size=40, n_envs=1, observation_space=BOX, **kwargs):
    return SequenceReplayBuffer(
        buffer_size, observation_space, ACTIONS, device=DEVICE, n_envs=n_envs, **{"sequence_length": 4, **kwargs}
    )


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
    share = np.bincount(steps.long().cpu().numpy(), minlength=20) / len(steps) * 20
    assert share.min() > 0.55  # the first and the last step: (4 + 3 + 2 + 1) / 16 of a step in the middle


def test_each_observation_is_stored_once():
    images = spaces.Box(0, 255, (3, 36, 36), np.uint8)
    buffer = make_buffer(buffer_size=64, n_envs=2, observation_space=images)
    held = sum(
        array.nbytes
        for value in buffer.__getstate__().values()
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
    assert sorted(buffer._observations.arrays()[None].ravel()) == list(range(11))


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
    got = copy.sample(50)
    for name in ("observations", "actions", "rewards", "terminated", "acted", "mask"):
        assert torch.equal(getattr(got, name), getattr(expected, name))
    episodes.buffer = copy
    episodes.write(25)
    check_windows(copy.sample(500), episodes.ends, 4, set(episodes.number(episodes.step)))
    assert buffer.size() < copy.size()


def test_burn_in_is_what_came_before_in_the_episode():
    np.random.seed(0)
    buffer = make_buffer(buffer_size=60, n_envs=2, burn_in=3)
    episodes = NumberedEpisodes(buffer, [[2, 9], [6, 80]]).write(50)
    samples = buffer.sample(1000)
    check_windows(samples, episodes.ends, 4, set(episodes.number(episodes.step)))
    firsts = samples.observations[0].squeeze(-1).cpu().numpy()
    before, lengths = samples.burn_in.observations.squeeze(-1).cpu().numpy(), samples.burn_in.lengths.cpu().numpy()
    oldest = [buffer._observations.arrays()[None][e, buffer._oldest[e] % buffer.buffer_size, 0] for e in range(2)]
    assert set(lengths) == {0, 1, 2, 3}
    for first, states, length in zip(firsts, before.T, lengths, strict=True):
        np.testing.assert_array_equal(states[:length], np.arange(first - length, first))
        available = first % EPISODE if int(first) // EPISODE * EPISODE >= min(oldest) else None
        assert length == 3 or length == available or first - length in oldest


def test_states_are_those_before_the_first_observation_of_burn_in():
    """The state after an observation is it times (1, 10) here, and (-1, -10) before an episode's first."""
    np.random.seed(0)
    for burn_in in (0, 2):
        buffer = make_buffer(burn_in=burn_in)
        buffer.store_states(np.array([[-1, -10]]))
        with pytest.raises(ValueError, match="give add.. its next_states"):
            NumberedEpisodes(buffer, [[5]]).write(1)
        episodes = NumberedEpisodes(buffer, [[3, 6, 70]])
        for _ in range(60):
            episodes.write(1, next_states=(episodes.number(episodes.step)[:, None] * [1, 10])[:, None])
        samples = buffer.sample(500)
        first = samples.observations[0].squeeze(-1)
        if burn_in:
            begins = samples.burn_in.observations[0].squeeze(-1)
            first = torch.where(samples.burn_in.lengths > 0, begins, first)
        expected = torch.where(first % EPISODE == 0, -1, first - 1)
        torch.testing.assert_close(samples.states[:, 0, 0], expected.float())
        torch.testing.assert_close(samples.states[:, 0, 1], 10 * expected.float())


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
    torch.testing.assert_close(samples.observations[..., 0][acted] * 2, samples.rewards[acted])
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
    with pytest.raises(ValueError, match="must be at least 1, not 0 and 3"):
        make_buffer(sequence_length=0)
    with pytest.raises(ValueError, match="Discrete actions only"):
        SequenceReplayBuffer(40, BOX, spaces.Box(-1, 1, (2,)))
    assert isinstance(make_buffer(), ReplayBuffer)


def step(first, number=1, n_envs=1):
    """One step of every environment, from the observation `first` to the next number."""
    obs = np.full((n_envs, *BOX.shape), first, BOX.dtype)
    return obs, obs + number, np.zeros(n_envs, np.int64), np.zeros(n_envs), np.zeros(n_envs, bool), [{}] * n_envs


def test_a_step_from_elsewhere_begins_an_episode():
    """0 1 2, then 7 8 added by hand, and 8 9 that follows: two episodes, the first closed without a true end."""
    buffer = make_buffer(sequence_length=3)
    for first in (0, 1):
        buffer.add(*step(first))
    with pytest.warns(UserWarning, match="from an observation that is not the one stored last"):
        buffer.add(*step(7))
    buffer.add(*step(8))
    assert buffer._observations.arrays()[None][0, :6, 0].tolist() == [0, 1, 2, 7, 8, 9]
    assert buffer._acted[0, :6].tolist() == [True, True, False, True, True, False]
    assert buffer._episode_first[0, :6].tolist() == [0, 0, 0, 3, 3, 3]
    assert not buffer._terminated.any()
    windows = buffer.sample(50)
    grows = np.diff(windows.observations[..., 0].cpu().numpy(), axis=0)
    np.testing.assert_array_equal(grows, windows.acted[:-1].cpu().numpy())


def test_only_the_environment_that_was_moved_begins_an_episode():
    buffer = make_buffer(n_envs=2)
    buffer.add(*step(0, n_envs=2))
    obs, next_obs, *rest = step(1, n_envs=2)
    obs[1] += 4
    with pytest.warns(UserWarning, match="not the one stored last"):
        buffer.add(obs, next_obs, *rest)
    assert buffer._running_first.tolist() == [0, 2]
    assert buffer._written.tolist() == [3, 4]


def test_observations_of_another_shape_are_refused_and_not_forced():
    image = spaces.Box(0, 255, (3, 4, 4), np.uint8)
    buffer = make_buffer(observation_space=spaces.Dict({"image": image, "number": spaces.Discrete(4)}))
    observation = {"image": np.zeros((1, 3, 4, 4), np.uint8), "number": np.zeros(1, np.int64)}
    rest = (np.zeros(1), np.zeros(1), np.zeros(1), [{}])
    buffer.add(observation, observation, *rest)
    turned = {**observation, "image": np.zeros((1, 4, 4, 3), np.uint8)}
    with pytest.raises(ValueError, match=r"'image' must have the shape \(1, 3, 4, 4\) .*, got \(1, 4, 4, 3\)"):
        buffer.add(turned, turned, *rest)


@pytest.mark.parametrize("handled", [True, False])
def test_time_limits_are_true_ends_where_told(handled):
    """SB3's handle_timeout_termination."""
    buffer = make_buffer(handle_timeout_termination=handled)
    *transition, _, _ = step(0)
    buffer.add(*transition, np.array([True]), [{"TimeLimit.truncated": True}])
    assert buffer._terminated[0, 0] == (not handled)
