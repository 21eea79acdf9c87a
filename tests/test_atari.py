import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.env_checker import check_env

from sb3_permakey import make_atari_env
from sb3_permakey.atari import UnknownGameError


def play(env, steps, seed=0):
    """Observations, rewards, ends and infos under random actions."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(steps):
        observation, reward, terminated, truncated, info = env.step(random.integers(env.action_space.n))
        rows.append((observation, reward, terminated or truncated, info))
        if terminated or truncated:
            env.reset()
    return rows


@pytest.mark.parametrize("training", [True, False])
def test_observations_are_rgb_84x84(training):
    env = make_atari_env("MsPacman", seed=0, training=training)
    assert env.observation_space == spaces.Box(0, 255, (84, 84, 3), np.uint8)
    check_env(env, warn=False)


def test_both_spellings_of_a_game():
    one, other = make_atari_env("Seaquest", seed=1), make_atari_env("ALE/Seaquest-v5", seed=1)
    np.testing.assert_array_equal(one.reset()[0], other.reset()[0])


def test_equal_seeds_give_equal_games_and_others_differ():
    games = [play(make_atari_env("MsPacman", seed=seed), 60) for seed in (3, 3, 4)]
    frames = [np.stack([row[0] for row in game]) for game in games]
    np.testing.assert_array_equal(frames[0], frames[1])
    assert not np.array_equal(frames[0], frames[2])


def test_training_ends_episodes_at_lost_lives_and_clips_rewards():
    training, whole = (make_atari_env("MsPacman", seed=0, training=training) for training in (True, False))
    training.reset()
    whole.reset()
    rows = play(training, 900)
    ends = [row[3] for row in rows if row[2]]
    assert len(ends) >= 3
    assert ends[0]["lives"] == 2
    assert sum("episode" in info for info in ends) < len(ends)  # a game has several lives
    assert {row[1] for row in rows} <= {-1.0, 0.0, 1.0}
    assert max(row[1] for row in play(whole, 100)) >= 10


def test_a_finished_games_record_holds_the_full_score():
    env = make_atari_env("MsPacman", seed=0, training=True)
    env.reset()
    records = [row[3]["episode"] for row in play(env, 900) if "episode" in row[3]]
    assert records
    assert records[0]["r"] >= 100
    assert records[0]["l"] > 100


def test_fire_is_pressed_where_the_game_waits_for_it():
    env = make_atari_env("Breakout", seed=0, training=False)
    env.reset()
    frames = np.stack([env.step(0)[0] for _ in range(8)])
    assert (frames[1:] != frames[:-1]).any(axis=(1, 2, 3)).all()  # the ball flies


def test_sticky_actions_are_off_unless_asked_for():
    assert make_atari_env("MsPacman").spec.kwargs["repeat_action_probability"] == 0
    assert make_atari_env("MsPacman", sticky=0.25).spec.kwargs["repeat_action_probability"] == 0.25


@pytest.mark.parametrize(
    ("game", "nearest"),
    [("MsPacmann", "MsPacman"), ("ms_pacman", "MsPacman"), ("Sequest", "Seaquest"), ("pong", "Pong")],
)
def test_unknown_games_get_the_nearest_name(game, nearest):
    with pytest.raises(UnknownGameError, match=f"unknown Atari game '{game}'; the nearest name is '{nearest}'"):
        make_atari_env(game)
