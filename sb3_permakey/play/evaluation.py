"""Whole games on test seeds, by an agent and by the random policy."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from sb3_permakey.envs.distractors import DistractorKind
from sb3_permakey.envs.named import NamedEnvironment, action_names
from sb3_permakey.figures import (
    draw_attention,
    enlarge,
    import_imageio,
    keypoint_animation,
    save_mp4,
    side_by_side,
)
from sb3_permakey.files import locked_file, read_json, require_writable, write_json
from sb3_permakey.keypoints import model_fingerprint
from sb3_permakey.play.saved_agents import FrameAgent, Look
from sb3_permakey.play.window import in_window
from sb3_permakey.provenance import provenance
from sb3_permakey.settings import NO_DEFAULT, require_one, require_range, require_suffix

FIRST_TEST_SEED = 2_000_000
"""Test seeds start here; training seeds lie below 1,000,000 and validation seeds between."""
MOST_TEST_SEEDS = 10_000
"""Each has an emulator of its own."""
FRAMES_PER_SECOND = 15
"""Agent steps in a second of play: 60 frames at a frame skip of 4."""


@dataclass(frozen=True)
class EvaluateConfig:
    """Play whole games with a trained agent and with the random policy, on the same seeds.

    As in training, the agent begins anew where a life is lost.
    """

    game: Annotated[str | None, NO_DEFAULT] = None
    """Game, e.g. MsPacman."""
    env: Annotated[str | None, NO_DEFAULT] = None
    """Instead of a game your own environment, module:function, or an id of gymnasium's."""
    agent: Path = field(kw_only=True)
    """The agent's file, e.g. best_model.zip."""
    out: Path = field(kw_only=True)
    """JSON file to write."""
    checkpoint: Annotated[Path | None, NO_DEFAULT] = None
    """Keypoint checkpoint, for an agent that sees keypoints; the package's own are found without."""
    seeds: int = 10
    """Test seeds, one game on each."""
    epsilon: float = 0.0
    """Probability that the agent's action is replaced by a random one (paper: 0)."""
    distractor: Annotated[DistractorKind | None, NO_DEFAULT] = None
    """Bars of noisy Atari."""
    video: Annotated[Path | None, NO_DEFAULT] = None
    """MP4 file for the first game: score, action, and keypoints, or where an agent with the encoder attention looks."""
    render: bool = False
    """Show the agent's first game in a window, as fast as it is played."""

    def __post_init__(self) -> None:
        require_one(game=self.game, env=self.env)
        require_range(0, 1, epsilon=self.epsilon)
        require_range(1, MOST_TEST_SEEDS, seeds=self.seeds)
        require_suffix(".mp4", video=self.video)

    @property
    def environment(self) -> NamedEnvironment:
        """What is played."""
        return NamedEnvironment(self.game, self.env)


@dataclass(frozen=True)
class Game:
    """One game played to its end."""

    seed: int
    score: float
    """Sum of the game's own rewards."""
    steps: int
    """Agent steps."""


class Recorded(NamedTuple):
    """A step of a game, as videos show it."""

    frame: np.ndarray
    """uint8 (84, 84, 3)."""
    score: float
    """Sum of the game's own rewards so far."""
    action: str
    """The one that was then chosen."""


Chooser = Callable[[np.ndarray, np.ndarray, Sequence[int]], Sequence[int] | np.ndarray]
"""Frames, episode starts and the numbers of the games that go on, to one action each."""
Note = Callable[[Sequence[int] | np.ndarray, np.ndarray], None]
"""Is told the actions of these games and the rewards that they brought."""


def play_games(
    environment: NamedEnvironment,
    seeds: Sequence[int],
    choose: Chooser,
    title: str,
    record: list[Recorded] | None = None,
    distractor: DistractorKind | None = None,
    note: Note | None = None,
    *,
    show: bool = False,
) -> list[Game]:
    """Play one whole game on each seed, all at once, as training does: each life is an episode that begins anew.

    :param environment: what is played
    :param seeds: seed of each game
    :param choose: chooses the actions
    :param title: of the progress bar
    :param record: takes the first game's steps
    :param distractor: bars of noisy Atari
    :param note: is told each step
    :param show: whether the first game is shown in a window
    :raises ImportError: when it is to be shown and pygame is not installed
    :raises WindowError: when it cannot be shown
    """

    def make(index: int) -> gym.Env:
        shown = show and index == 0
        env = environment.make(distractor=distractor, render=shown)
        return in_window(env, environment.name, FRAMES_PER_SECOND) if shown else env

    with ExitStack() as opened:
        envs = [opened.enter_context(closing(make(index))) for index in range(len(seeds))]
        frames = {index: env.reset(seed=seed)[0] for index, (env, seed) in enumerate(zip(envs, seeds, strict=True))}
        scores, steps, starts = np.zeros(len(envs)), np.zeros(len(envs), dtype=int), np.ones(len(envs), dtype=bool)
        bar = opened.enter_context(tqdm(total=len(envs), desc=title, unit="game"))
        while frames:
            playing = list(frames)
            actions = choose(np.stack([frames[index] for index in playing]), starts[playing], playing)
            if record is not None and 0 in frames:
                names, score = action_names(envs[0]), sum(envs[0].get_wrapper_attr("rewards"))
                record.append(Recorded(np.array(frames[0]), float(score), names[int(actions[0])]))
            rewards = np.zeros(len(playing))
            for place, (index, action) in enumerate(zip(playing, actions, strict=True)):
                env = envs[index]
                frames[index], rewards[place], terminated, truncated, _ = env.step(int(action))
                steps[index] += 1
                starts[index] = terminated or truncated
                if starts[index] and not _played(env):
                    # The step with which the next life begins can end the game too.
                    frames[index], _ = env.reset()
                if _played(env):
                    scores[index] = _played(env)[0]
                    del frames[index]
                    bar.update()
            if note is not None:
                note(actions, rewards)
    return [Game(seed, float(score), int(count)) for seed, score, count in zip(seeds, scores, steps, strict=True)]


def _played(env: gym.Env) -> list[float]:
    """Scores of the games that an environment has played to their ends, as its Monitor counts them."""
    return env.get_wrapper_attr("get_episode_rewards")()


def agent_chooser(agent: FrameAgent, actions: int, seeds: Sequence[int], epsilon: float) -> Chooser:
    """The actions of an agent, or with probability epsilon random ones; games that have ended are forgotten."""
    before: list[int] = []
    choose_randomly = random_chooser(actions, seeds)
    generators = [np.random.default_rng((seed, 1)) for seed in seeds]

    def choose(frames: np.ndarray, starts: np.ndarray, playing: Sequence[int]) -> np.ndarray:
        if before and len(playing) < len(before):
            agent.keep([before.index(index) for index in playing])
        before[:] = playing
        explores = np.array([generators[index].random() for index in playing]) < epsilon
        return np.where(explores, choose_randomly(frames, starts, playing), agent.act(frames, starts))

    return choose


def watched_chooser(choose: Chooser, agent: FrameAgent, looks: list[Look]) -> Chooser:
    """The same actions; takes down where the agent looks in the first game."""

    def watched(frames: np.ndarray, starts: np.ndarray, playing: Sequence[int]) -> Sequence[int] | np.ndarray:
        actions = choose(frames, starts, playing)
        if 0 in playing:
            looks.append(agent.looks(agent.observed)[playing.index(0)])
        return actions

    return watched


def random_chooser(actions: int, seeds: Sequence[int]) -> Chooser:
    """Uniform actions of so many; the seed of a game determines them."""
    generators = [np.random.default_rng(seed) for seed in seeds]

    def choose(frames: np.ndarray, starts: np.ndarray, playing: Sequence[int]) -> list[int]:
        return [int(generators[index].integers(actions)) for index in playing]

    return choose


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Play, write the JSON file and, where wanted, the video; a file of the same evaluation is read instead.

    :param config: what to evaluate
    :return: the content of the JSON file
    :raises AgentFileError: when the agent is missing, broken, plays with other actions, or needs another checkpoint
    :raises OwnEnvironmentError: when there is no such environment, or it has no frames or no Discrete actions
    :raises ImportError: when a video is wanted and imageio is not installed, or a window and pygame is not
    :raises WindowError: when the game is to be shown and cannot be
    :raises ValueError: when the file holds another evaluation, or the agent sees no keypoints and a checkpoint is given
    :raises WriteError: when JSON or video cannot be written, or another run is writing the JSON file
    """
    environment = config.environment
    game, space = environment.id, environment.actions()
    if config.video:
        import_imageio()
    agent = FrameAgent(config.agent, config.checkpoint)
    if config.checkpoint and agent.detector is None:
        raise ValueError(f"{config.agent} sees no keypoints: leave out the checkpoint {config.checkpoint}")
    agent.require_fit(environment, space)
    wanted = {
        "game": game,
        "agent_sha256": hashlib.sha256(config.agent.read_bytes()).hexdigest(),
        "checkpoint_sha256": None if agent.detector is None else model_fingerprint(agent.detector.model),
        "seeds": [FIRST_TEST_SEED + index for index in range(config.seeds)],
        "epsilon": config.epsilon,
        "distractor": config.distractor,
    }
    if config.out.exists():
        found = read_json(config.out)
        other = [name for name, value in wanted.items() if found.get(name) != value]
        if other:
            raise ValueError(f"{config.out} holds another evaluation (other {', '.join(other)}); give another --out")
        if not config.render and (not config.video or config.video.exists()):
            return found
    require_writable(config.out, config.video)
    with locked_file(config.out):
        return _evaluate(config, agent, int(space.n), wanted)


def _evaluate(config: EvaluateConfig, agent: FrameAgent, actions: int, wanted: dict[str, Any]) -> dict[str, Any]:
    """Play, and write JSON and video."""
    environment, seeds = config.environment, wanted["seeds"]
    record: list[Recorded] = []
    looks: list[Look] = []
    choose = agent_chooser(agent, actions, seeds, config.epsilon)
    if config.video and agent.attention is not None:
        choose = watched_chooser(choose, agent, looks)
    players: dict[str, tuple[Chooser, list[Recorded] | None, Note | None]] = {
        "agent": (choose, record if config.video else None, agent.note),
        "random": (random_chooser(actions, seeds), None, None),
    }
    games = {
        name: play_games(
            environment,
            seeds,
            choose,
            f"{name} plays {environment.name}",
            recorded,
            config.distractor,
            note,
            show=config.render and name == "agent",
        )
        for name, (choose, recorded, note) in players.items()
    }
    files = {"agent_file": str(config.agent), "checkpoint": str(config.checkpoint) if config.checkpoint else None}
    result = {**wanted, **files, **provenance()}
    for name, played in games.items():
        result[name] = {**summarise(played), "games": [asdict(one) for one in played]}
    write_json(config.out, result)
    if config.video:
        title = f"{config.agent.name}, {environment.name}"
        save_mp4(config.video, _pictures(agent, record, looks, title), FRAMES_PER_SECOND)
    return result


def summarise(games: Sequence[Game]) -> dict[str, float]:
    """Mean, standard deviation, median, lowest and highest score, and the mean number of steps."""
    scores = np.array([game.score for game in games])
    return {
        "mean": float(scores.mean()),
        "std": float(scores.std()),
        "median": float(np.median(scores)),
        "min": float(scores.min()),
        "max": float(scores.max()),
        "mean_steps": float(np.mean([game.steps for game in games])),
    }


def score_table(result: dict[str, Any]) -> str:
    """Agent and random policy as a text table."""
    seeds, epsilon = len(result["seeds"]), result["epsilon"]
    noise = f", distractor bars {result['distractor']}" if result.get("distractor") else ""
    lines = [f"{result['game']}, whole games, {seeds} test seeds, agent's epsilon {epsilon}{noise}"]
    lines.append(f"{'policy':<8}{'mean':>9}{'std':>9}{'median':>9}{'min':>9}{'max':>9}{'steps':>9}")
    for name in ("agent", "random"):
        row = result[name]
        values = [row[key] for key in ("mean", "std", "median", "min", "max", "mean_steps")]
        lines.append(f"{name:<8}" + "".join(f"{value:>9.1f}" for value in values))
    return "\n".join(lines)


def _pictures(agent: FrameAgent, record: Sequence[Recorded], looks: Sequence[Look], title: str) -> Iterator[np.ndarray]:
    """The steps enlarged, with keypoints where the agent sees them, or where it looks if it attends to some of them."""
    frames = [step.frame for step in record]
    if looks:
        pictures = [draw_attention(frame, *look) for frame, look in zip(frames, looks, strict=True)]
    elif agent.detector is None:
        pictures = [enlarge(frame) for frame in frames]
    else:
        pictures = keypoint_animation(agent.detector, np.stack(frames))
    for number, (step, picture) in enumerate(zip(record, pictures, strict=True)):
        yield np.asarray(side_by_side([picture], [title], f"step {number}, score {step.score:g}, {step.action}"))
