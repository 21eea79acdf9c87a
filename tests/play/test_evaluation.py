import itertools

import gymnasium as gym
import numpy as np
import pytest
from conftest import MovingSquare
from stable_baselines3.common.monitor import Monitor

from sb3_permakey import DistractorBars
from sb3_permakey.envs import named
from sb3_permakey.envs.distractors import BAR_COLOR
from sb3_permakey.envs.named import NamedEnvironment
from sb3_permakey.files import InUseError, WriteError, locked_file
from sb3_permakey.play import evaluation
from sb3_permakey.play.evaluation import (
    EvaluateConfig,
    _pictures,
    agent_chooser,
    evaluate,
    play_games,
    random_chooser,
    score_table,
    summarise,
    watched_chooser,
)
from sb3_permakey.play.saved_agents import Look

SQUARE = NamedEnvironment("Square")


class RecordingAgent:
    """Answers 2, and keeps which games it was asked about."""

    def __init__(self):
        self.rows = np.arange(3)
        self.asked = []

    def act(self, frames, episode_starts):
        self.asked.append((self.rows.tolist(), episode_starts.tolist()))
        return np.full(len(frames), 2)

    def keep(self, rows):
        self.rows = self.rows[rows]


class Lives(gym.Wrapper):
    """A life ends after so many steps, and is an episode; the Monitor below sees whole games."""

    def __init__(self, env, life):
        super().__init__(env)
        self.life = life

    def reset(self, **kwargs):
        if self.env.unwrapped.steps and not self.over:
            return self.frame, {}
        self.over = False
        return self.env.reset(**kwargs)

    def step(self, action):
        self.frame, reward, self.over, truncated, info = self.env.step(action)
        return self.frame, reward, self.over or self.env.unwrapped.steps % self.life == 0, truncated, info


class Closing(MovingSquare):
    closed = 0

    def __init__(self, length):
        super().__init__(length)
        self.steps = 0

    def close(self):
        Closing.closed += 1


@pytest.fixture
def squares(monkeypatch):
    """Games of 3, 5 and 4 steps, with a life of 2 steps; all of them are closed in the end."""
    lengths = itertools.cycle([3, 5, 4])
    opened = []

    def make(game, *, distractor=None, **_):
        opened.append(game)
        env = Closing(next(lengths))
        return Lives(Monitor(DistractorBars(env, distractor) if distractor else env), 2)

    monkeypatch.setattr(named, "make_atari_env", make)
    monkeypatch.setattr(NamedEnvironment, "actions", lambda self: MovingSquare.action_space)
    monkeypatch.setattr(Closing, "closed", 0)
    yield
    assert Closing.closed == len(opened)


def test_games_are_played_to_their_ends_and_the_ended_forgotten(squares):
    agent, record = RecordingAgent(), []
    games = play_games(SQUARE, [0, 1, 2], agent_chooser(agent, 3, [0, 1, 2], 0.0), "test", record)
    assert [(game.seed, game.steps) for game in games] == [(0, 3), (1, 5), (2, 4)]
    assert [rows for rows, _ in agent.asked] == [[0, 1, 2]] * 3 + [[1, 2], [1]]
    # As in training, a life that begins is an episode that begins.
    lives = [[True] * 3, [False] * 3, [True] * 3, [False, False], [True]]
    assert [starts for _, starts in agent.asked] == lives
    assert [step.action for step in record] == ["action 2"] * 3
    assert record[0].score == 0
    last_reward = min(record[2].frame[42, :, 0].argmax() + 4, 76) / 84
    assert record[2].score == pytest.approx(games[0].score - last_reward)


def test_an_atari_agent_begins_each_life_anew():
    agent, choose = RecordingAgent(), random_chooser(9, [0])
    agent.act = lambda frames, starts: agent.asked.append(bool(starts[0])) or choose(frames, starts, [0])
    (game,) = play_games(NamedEnvironment("MsPacman"), [0], agent_chooser(agent, 9, [0], 0.0), "test")
    assert agent.asked.count(True) == 3  # MsPacman's lives
    assert len(agent.asked) == game.steps
    assert game.score >= 100  # not clipped


def test_scores_are_the_games_own_sums(squares):
    env, total = MovingSquare(3), 0.0
    env.reset(seed=1)
    for _ in range(3):
        total += env.step(2)[1]
    games = play_games(SQUARE, [1], agent_chooser(RecordingAgent(), 3, [1], 0.0), "test")
    assert games[0].score == pytest.approx(total)


def test_each_step_is_told_with_the_rewards_of_the_games_that_went_on(squares):
    told = []
    games = play_games(
        SQUARE,
        [0, 1, 2],
        agent_chooser(RecordingAgent(), 3, [0, 1, 2], 0.0),
        "test",
        note=lambda actions, rewards: told.append((list(actions), rewards)),
    )
    assert [actions for actions, _ in told] == [[2, 2, 2]] * 3 + [[2, 2], [2]]
    first_rewards = [rewards[0] for _, rewards in told[:3]]
    assert sum(first_rewards) == pytest.approx(games[0].score)
    assert sum(rewards.sum() for _, rewards in told) == pytest.approx(sum(game.score for game in games))
    assert told[4][1] == pytest.approx(told[3][1][0] + 4 / 84)


def test_noisy_games_are_played_with_bars(squares):
    record = []
    choose = agent_chooser(RecordingAgent(), 3, [0], 0.0)
    play_games(SQUARE, [0], choose, "test", record, distractor="horizontal")
    assert [int((frame == BAR_COLOR).all(axis=(1, 2)).sum()) for frame, *_ in record] == [5, 5, 5]


def test_random_play_depends_on_the_seed_alone(squares):
    together = random_chooser(3, [0, 1])
    alone = random_chooser(3, [1])
    frames, starts = np.zeros((2, 84, 84, 3)), np.zeros(2, bool)
    first = [together(frames, starts, [0, 1])[1] for _ in range(20)]
    assert first == [alone(frames, starts, [0])[0] for _ in range(20)]
    assert set(first) == {0, 1, 2}


def test_epsilon_mixes_in_random_actions(squares):
    choose = agent_chooser(RecordingAgent(), 3, [0, 1, 2], 0.5)
    actions = np.stack([choose(np.zeros((3, 84, 84, 3)), np.zeros(3, bool), [0, 1, 2]) for _ in range(200)])
    # Half of the actions are random, of which a third is 2 as well.
    assert (actions == 2).mean() == pytest.approx(2 / 3, abs=0.06)


def test_summary_and_table():
    games = [evaluation.Game(0, 10.0, 4), evaluation.Game(1, 30.0, 6)]
    summary = summarise(games)
    assert summary == {"mean": 20, "std": 10, "median": 20, "min": 10, "max": 30, "mean_steps": 5}
    table = score_table({"game": "G", "seeds": [0, 1], "epsilon": 0.0, "agent": summary, "random": summary})
    assert "distractor" not in table
    noisy = {"game": "G", "seeds": [0], "epsilon": 0.0, "distractor": "both", "agent": summary, "random": summary}
    assert "distractor bars both" in score_table(noisy)
    assert table.splitlines()[-1].split() == ["random", "20.0", "10.0", "20.0", "10.0", "30.0", "5.0"]


@pytest.fixture
def evaluated(squares, monkeypatch, tmp_path):
    """Evaluates an agent's file on three games; how many games were played."""
    played = []
    original = play_games

    class Agent(RecordingAgent):
        detector = attention = None

        def __init__(self, path, checkpoint):
            super().__init__()

        def require_fit(self, environment, actions):
            pass

        def note(self, actions, rewards):
            pass

    def play(*arguments, **settings):
        played.append(arguments)
        return original(*arguments, **settings)

    monkeypatch.setattr(evaluation, "FrameAgent", Agent)
    monkeypatch.setattr(evaluation, "play_games", play)
    (tmp_path / "agent.zip").write_bytes(b"an agent")

    def evaluated(**settings):
        played.clear()
        files = {"agent": tmp_path / "agent.zip", "out": tmp_path / "scores.json"}
        evaluate(EvaluateConfig(**{"game": "MsPacman", "seeds": 3, **files, **settings}))
        return len(played)

    return evaluated


def test_scores_are_those_of_this_agents_content(evaluated, tmp_path):
    assert evaluated() == 2  # the agent's games and the random policy's
    assert evaluated() == 0
    other_place = tmp_path / "other.zip"
    other_place.write_bytes(b"an agent")
    assert evaluated(agent=other_place) == 0
    (tmp_path / "agent.zip").write_bytes(b"another agent")
    with pytest.raises(ValueError, match=r"holds another evaluation \(other agent_sha256\); give another --out"):
        evaluated()
    with pytest.raises(ValueError, match=r"\(other agent_sha256, seeds, epsilon\)"):
        evaluated(seeds=2, epsilon=0.1)


def test_a_video_that_is_missing_is_made(evaluated, tmp_path):
    pytest.importorskip("imageio")
    evaluated()
    assert evaluated(video=tmp_path / "game.mp4") == 2
    assert (tmp_path / "game.mp4").stat().st_size > 0
    assert evaluated(video=tmp_path / "game.mp4") == 0


def test_a_video_shows_where_the_agent_looks_in_the_first_game(squares):
    """Of three games the second goes on for longest, the first for 3 steps."""

    class Looking(RecordingAgent):
        def act(self, frames, episode_starts):
            self.observed = self.rows.tolist()
            return super().act(frames, episode_starts)

        def looks(self, games):
            return [Look(np.zeros((1, 2)), np.full((1, 1), game)) for game in games]

    agent, looks, record = Looking(), [], []
    seeds = [1, 2, 3]
    choose = watched_chooser(agent_chooser(agent, 3, seeds, 0.0), agent, looks)
    play_games(SQUARE, seeds, choose, "agent", record)
    assert len(looks) == len(record) == 3
    assert all(look.weights == 0 for look in looks)
    [*pictures] = _pictures(agent, record, looks, "agent")
    assert len(pictures) == 3
    for picture in pictures:
        assert 252 < picture.shape[1] < picture.shape[0] < 2 * 252  # a title above, a caption below


def test_nothing_is_played_for_files_that_cannot_be_written(evaluated, tmp_path):
    (tmp_path / "file").write_text("")
    for settings in ({"out": tmp_path / "file" / "x.json"}, {"video": tmp_path / "file" / "x.mp4"}):
        with pytest.raises(WriteError, match="could not write .*file/x.*Not a directory"):
            evaluated(**settings)
        assert not (tmp_path / "scores.json").exists()
    with locked_file(tmp_path / "scores.json"), pytest.raises(InUseError, match="another run is writing .*scores.json"):
        evaluated()


def test_scores_stay_where_the_video_fails(evaluated, tmp_path, monkeypatch):
    def fails(*_):
        raise WriteError("no space")

    monkeypatch.setattr(evaluation, "save_mp4", fails)
    with pytest.raises(WriteError):
        evaluated(video=tmp_path / "game.mp4")
    assert evaluated() == 0


def test_useless_and_impossible_settings_are_named(evaluated, tmp_path):
    with pytest.raises(ValueError, match="agent.zip sees no keypoints: leave out the checkpoint mspacman"):
        evaluated(checkpoint="mspacman")
    for settings, message in (
        ({"epsilon": 1.5}, "epsilon must be from 0 to 1, not 1.5"),
        ({"seeds": 0}, "seeds must be from 1 to 10000, not 0"),
        ({"video": tmp_path / "x.foo"}, "video must name a .mp4 file"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluated(**settings)
