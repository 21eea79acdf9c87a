import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from benchmarks.memory.tasks import TASKS, CartPoleWithoutVelocities, TMaze


def returns_of(task, choose, episodes, seed=0):
    """Returns of episodes in which `choose` gets all observations so far."""
    env = task.make()
    observation, _ = env.reset(seed=seed)
    returns = []
    while len(returns) < episodes:
        seen, score, over = [observation], 0.0, False
        while not over:
            observation, reward, terminated, truncated, _ = env.step(choose(seen))
            seen.append(observation)
            score, over = score + reward, terminated or truncated
        returns.append(score)
        observation, _ = env.reset()
    return np.array(returns)


def remembers_the_sign(seen):
    return int(seen[0][1])


@pytest.mark.parametrize("name", TASKS)
def test_environments_keep_to_gymnasiums_rules(name):
    env = TASKS[name].make().unwrapped if name != "cartpole" else CartPoleWithoutVelocities()
    check_env(env, skip_render_check=True)


@pytest.mark.parametrize("name", TASKS)
def test_the_same_seed_gives_the_same_episodes(name):
    task = TASKS[name]
    first, again, other = (
        np.stack([task.make().reset(seed=seed + index)[0] for index in range(10)]) for seed in (5, 5, 50)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_cartpole_shows_place_and_angle_alone():
    env = CartPoleWithoutVelocities()
    observation, _ = env.reset(seed=0)
    for action in (0, 1, 1):
        place, _, angle, _ = env.unwrapped.state
        assert observation == pytest.approx([place, 5 * angle])
        observation, *_ = env.step(action)


def test_cartpole_ends_after_500_steps_and_475_are_a_success():
    env = TASKS["cartpole"].make()
    env.reset(seed=0)
    env.unwrapped.theta_threshold_radians = env.unwrapped.x_threshold = np.inf
    assert [env.step(0)[3] for _ in range(500)] == [False] * 499 + [True]
    assert TASKS["cartpole"].success(np.array([9, 474, 475, 500])).tolist() == [0, 0, 1, 1]


def test_the_sign_is_seen_at_the_first_step_only():
    env = TMaze(3)
    sign, _ = env.reset(seed=0)
    assert sign.tolist() in ([1, 0, 0], [0, 1, 0])
    steps = [env.step(0) for _ in range(3)]
    assert [step[0].tolist() for step in steps] == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert [step[1:4] for step in steps] == [(0.0, False, False)] * 3
    right_way = int(sign[1])
    assert env.step(right_way)[1:4] == (1.0, True, False)


def test_the_wrong_way_brings_nothing():
    env = TMaze(1)
    sign, _ = env.reset(seed=0)
    env.step(0)
    assert env.step(1 - int(sign[1]))[1:3] == (0.0, True)


@pytest.mark.parametrize("length", [10, 30])
def test_the_tmaze_needs_memory(length):
    task = TASKS[f"tmaze-{length}"]
    random = np.random.default_rng(0)
    assert task.success(returns_of(task, remembers_the_sign, 40)).mean() == 1.0
    # Without memory the junction always looks the same, so one way is taken, right half the time.
    for choose in (lambda seen: 1, lambda seen: int(random.integers(2))):
        rate = task.success(returns_of(task, choose, 1000)).mean()
        assert rate == pytest.approx(0.5, abs=4 * 0.5 / 1000**0.5)
    assert (task.chance, task.memoryless) == (0.5, 0.5)


@pytest.mark.parametrize("name", [name for name in TASKS if not name.startswith("cartpole")])
def test_episodes_have_the_stated_number_of_steps(name):
    env = TASKS[name].make()
    env.reset(seed=0)
    ends = [env.step(0)[2] for _ in range(TASKS[name].episode_steps)]
    assert ends == [False] * (len(ends) - 1) + [True]


def test_tasks_are_registered():
    env = gym.make("benchmarks.memory.tasks:TMaze-v0", length=7)
    assert env.unwrapped.length == 7


def test_a_tmaze_without_a_corridor_is_refused():
    with pytest.raises(ValueError, match="length of at least 1, not 0"):
        TMaze(0)
