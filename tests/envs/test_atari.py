import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import RecordVideo
from stable_baselines3.common.env_checker import check_env

from sb3_permakey import make_atari_env
from sb3_permakey.envs.atari import UnknownGameError, atari_env_id
from sb3_permakey.envs.distractors import BAR_COLOR, BAR_WIDTH_PX


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


@pytest.mark.parametrize("spelling", ["mspacman", "MSPACMAN", "ms_pacman", "ALE/mspacman-v5"])
def test_capital_letters_and_underscores_make_no_difference(spelling):
    assert atari_env_id(spelling) == "ALE/MsPacman-v5"


def test_other_environments_are_pointed_to_record_frames():
    with pytest.raises(UnknownGameError, match=r"CartPole-v1 is not an Atari game: .*record_frames\(env, folder\)"):
        atari_env_id("CartPole-v1")


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


def test_a_seed_begins_a_game_in_the_middle_of_another():
    env = make_atari_env("MsPacman", seed=0)
    first, info = env.reset(seed=5)
    assert info["lives"] == 3
    while not env.step(0)[2]:
        pass
    assert env.reset()[1]["lives"] == 2
    again, info = env.reset(seed=5)
    assert info["lives"] == 3
    np.testing.assert_array_equal(again, first)


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


@pytest.mark.parametrize(("game", "lives"), [("Breakout", 5), ("DonkeyKong", 2), ("Gopher", 3)])
@pytest.mark.parametrize("training", [True, False])
def test_fire_is_pressed_after_a_lost_life(game, lives, training):
    """A policy that does nothing loses all lives, where it would stand still before the second."""
    env = make_atari_env(game, seed=0, training=training)
    _, info = env.reset()
    seen, steps = [info["lives"]], 0
    while "episode" not in info and steps < 2000:
        _, _, terminated, _, info = env.step(0)
        steps += 1
        if terminated and "episode" not in info:
            _, info = env.reset()
        if info["lives"] != seen[-1]:
            seen.append(info["lives"])
    assert seen == list(range(lives, -1, -1))


@pytest.mark.parametrize("game", ["Backgammon", "VideoCheckers"])
@pytest.mark.parametrize("training", [True, False])
def test_games_without_a_no_op_can_be_played(game, training):
    env = make_atari_env(game, seed=0, training=training)
    assert env.unwrapped.get_action_meanings()[0] == "FIRE"
    env.reset()
    assert {row[0].shape for row in play(env, 20)} == {(84, 84, 3)}


def test_videos_show_the_emulators_picture_at_its_speed(tmp_path):
    env = make_atari_env("Pong", seed=0, render_mode="rgb_array")
    env.reset()
    assert env.render().shape == (210, 160, 3)
    assert env.metadata["render_fps"] == 15
    pytest.importorskip("moviepy")
    env = RecordVideo(env, str(tmp_path), episode_trigger=lambda _: True)
    env.reset()
    play(env, 5)
    env.close()
    assert len(list(tmp_path.glob("*.mp4"))) == 1


def test_another_render_mode_is_named():
    with pytest.raises(ValueError, match="render_mode must be 'human', 'rgb_array' or None, not 'ansi'"):
        make_atari_env("Pong", render_mode="ansi")


def test_sticky_actions_are_off_unless_asked_for():
    assert make_atari_env("MsPacman").spec.kwargs["repeat_action_probability"] == 0
    assert make_atari_env("MsPacman", sticky=0.25).spec.kwargs["repeat_action_probability"] == 0.25


@pytest.mark.parametrize(
    ("game", "nearest"),
    [
        ("MsPacmann", "MsPacman"),
        ("ms_packman", "MsPacman"),
        ("Sequest", "Seaquest"),
        ("pongg", "Pong"),
        ("PongDeterministic-v4", "Pong"),
        ("PongNoFrameskip-v4", "Pong"),
        ("Breakout-ramDeterministic-v0", "Breakout"),
    ],
)
def test_unknown_games_get_the_nearest_name(game, nearest):
    with pytest.raises(UnknownGameError, match=f"unknown Atari game '{game}'; the nearest name is '{nearest}'"):
        make_atari_env(game)


@pytest.mark.parametrize(("game", "lives"), [("MsPacman", 3), ("Breakout", 5)])
@pytest.mark.parametrize("training", [True, False])
def test_bars_lie_where_the_info_says_and_the_rest_is_the_clean_game(game, lives, training):
    """Every observation that the agent gets, also after SB3's wrappers stepped through a lost life or pressed FIRE."""
    noisy = make_atari_env(game, seed=5, training=training, distractor="both")
    clean = make_atari_env(game, seed=5, training=training)
    random, places, ends = np.random.default_rng(0), [], 0
    pairs = (noisy.reset(seed=5), clean.reset(seed=5))
    for _ in range(900):
        (frame, info), (expected, clean_info) = pairs
        assert "distractor_bars" not in clean_info
        top, left = info["distractor_bars"]["top"], info["distractor_bars"]["left"]
        places.append((top, left))
        bars = np.zeros((84, 84), bool)
        bars[top : top + BAR_WIDTH_PX] = True
        bars[:, left : left + BAR_WIDTH_PX] = True
        assert (frame[bars] == BAR_COLOR).all()
        np.testing.assert_array_equal(frame[~bars], expected[~bars])
        action = random.integers(noisy.action_space.n)
        steps = noisy.step(action), clean.step(action)
        assert steps[0][1:4] == steps[1][1:4]
        over = steps[0][2] or steps[0][3]
        ends += over
        pairs = (noisy.reset(), clean.reset()) if over else ((step[0], step[4]) for step in steps)
    assert ends >= (lives if training else 1)
    assert len(set(places)) > 800


def test_another_kind_of_distractor_is_named():
    with pytest.raises(ValueError, match="distractor must be one of"):
        make_atari_env("MsPacman", distractor="diagonal")


@pytest.mark.parametrize("training", [True, False])
def test_games_can_be_cut_short_as_if_they_had_ended(training):
    env = make_atari_env("Seaquest", training=training, max_steps=40)
    env.reset(seed=0)
    terminated = truncated = False
    while not (terminated or truncated):
        *_, terminated, truncated, info = env.step(0)
    assert truncated
    # With the presses of FIRE after the reset.
    assert info["episode"]["l"] == 40
