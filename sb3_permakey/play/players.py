"""Who plays the episodes of a collection: random actions, saved agents, agents of the Hugging Face hub, recordings."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from sb3_permakey.envs.atari import PREPROCESSING, atari_env_id
from sb3_permakey.envs.named import NamedEnvironment
from sb3_permakey.envs.own import require_discrete_actions
from sb3_permakey.envs.resizing import resize
from sb3_permakey.extras import missing_package
from sb3_permakey.play.saved_agents import AgentFileError, FrameAgent

RANDOM = "random"
MINARI = "minari:"
LONGEST_REPEAT = 8
"""Actions of the random policy last 1 to this many steps."""
GOLDEN_RATIO = (5**0.5 - 1) / 2


class RecordingsError(ValueError):
    """A data set of recorded games that is missing or of other frames."""


class Source(NamedTuple):
    """A player and its part of the episodes."""

    name: str
    """"random", a saved agent's file, a repository of the Hugging Face hub, or "minari:" and a data set."""
    share: float
    """Share of the episodes; all shares sum to 1."""


def parse_sources(policies: Sequence[str]) -> list[Source]:
    """Sources from the words of the command line, "SOURCE" or "SOURCE=SHARE".

    Shares are weights: they need not sum to 1. Without them all sources play equally often.

    :raises ValueError: without a source, for shares that are not positive numbers, or given to some sources only
    """
    if not policies:
        raise ValueError("policy must name at least one player")
    names, shares = zip(*(_parse_source(policy) for policy in policies), strict=True)
    given = [share for share in shares if share is not None]
    if given and len(given) < len(shares):
        raise ValueError(f"give a share to every policy or to none, not as in {' '.join(policies)!r}")
    weights = np.array(given or [1.0] * len(names))
    return [Source(name, float(share)) for name, share in zip(names, weights / weights.sum(), strict=True)]


def _parse_source(policy: str) -> tuple[str, float | None]:
    if "=" not in policy or Path(policy).is_file():
        return policy, None
    name, _, share = policy.rpartition("=")
    try:
        weight = float(share)
    except ValueError:
        weight = 0.0
    if not 0 < weight < np.inf:
        raise ValueError(f"the share of policy {name} must be a positive number, not {share!r}")
    return name, weight


def require_agents(setting: str, policies: Sequence[str]) -> None:
    """Raise ValueError, which names the setting that would be ignored, unless an agent is among the players."""
    if all(source.name == RANDOM or source.name.startswith(MINARI) for source in parse_sources(policies)):
        raise ValueError(f"{setting} is of agents, but none plays: policy names {' '.join(policies)}")


def sources_of_episodes(sources: Sequence[Source], seed: int, episodes: int) -> np.ndarray:
    """Which source plays each of the first episodes; the seed and an episode's number alone decide it.

    The golden ratio's multiples, modulo 1 and shifted by the seed, fall evenly into the shares: after any number of
    episodes each source has played its share of them but for one or two.

    :param sources: the sources
    :param seed: of the collection
    :param episodes: number of episodes
    :return: int (episodes,), index of the source
    """
    points = (np.random.default_rng(seed).random() + np.arange(episodes) * GOLDEN_RATIO) % 1
    bounds = np.cumsum([source.share for source in sources])[:-1]
    return np.searchsorted(bounds, points, side="right")


class RepeatedActions:
    """Actions each of which lasts 1 to 8 steps.

    :param choose: gives another action
    :param random: where their lengths come from
    """

    def __init__(self, choose: Callable[[], Any], random: np.random.Generator) -> None:
        self.choose, self.random = choose, random
        self.steps_left = 0

    def next(self) -> Any:
        """The action of the next step."""
        if self.steps_left == 0:
            self.action = self.choose()
            self.steps_left = int(self.random.integers(1, LONGEST_REPEAT + 1))
        self.steps_left -= 1
        return self.action


class EpisodeActions:
    """Chooses the actions of one episode: an agent's, some of them replaced by random ones, or `RepeatedActions`.

    :param agent: plays with a memory of its own; None: random actions
    :param action_space: of the game, Discrete where an agent plays
    :param epsilon: probability of a random action beside an agent's
    :param random: where the choices come from
    """

    def __init__(
        self, agent: FrameAgent | None, action_space: spaces.Space, epsilon: float, random: np.random.Generator
    ) -> None:
        self.agent = agent.with_own_memory() if agent else None
        self.space, self.epsilon, self.random = action_space, epsilon, random
        if not isinstance(action_space, spaces.Discrete):
            action_space.seed(int(random.integers(2**31)))
        self.repeated = RepeatedActions(self._random_action, random)
        self.is_first, self.lives = True, 0

    def next(self, frame: np.ndarray, info: Mapping[str, Any]) -> Any:
        """The next action; an agent begins anew where a life was lost, as in training.

        :param frame: the present one, uint8 (84, 84, 3)
        :param info: the environment's, of the frame
        """
        if self.agent is None:
            return self.repeated.next()
        lives = info.get("lives", 0)
        (action,) = self.agent.act(frame[None], np.array([self.is_first or 0 < lives < self.lives]))
        self.is_first, self.lives = False, lives
        explores = self.random.random() < self.epsilon
        self.action = self._random_action() if explores else int(action)
        return self.action

    def note(self, reward: float) -> None:
        """The reward that the action brought, which some agents see with the next frame."""
        if self.agent is not None:
            self.agent.note([self.action], [reward])

    def _random_action(self) -> Any:
        if isinstance(self.space, spaces.Discrete):
            return int(self.space.start + self.random.integers(self.space.n))
        return self.space.sample()


class MinariRecordings:
    """Whole games of a Minari Atari data set as frames of this package.

    Minari's Atari data sets hold the emulator's RGB frames, 210x160, one of every four. They are resized as our own
    are, but they cannot be the maximum over the last two frames: sprites that flicker are missing from some of them.

    :param dataset_id: e.g. "atari/mspacman/expert-v0"; it is downloaded when it is not there
    :param game: game that the frames must be of
    :raises ImportError: when Minari is not installed
    :raises RecordingsError: when there is no such data set, or its frames are of another game, size or frame skip
    """

    def __init__(self, dataset_id: str, game: str) -> None:
        minari = _import("minari", f"the Minari data set {dataset_id} needs")
        try:
            self.dataset = minari.load_dataset(dataset_id, download=True)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RecordingsError(f"could not load the Minari data set {dataset_id}: {_first_line(error)}") from error
        spec, space = self.dataset.env_spec, self.dataset.observation_space
        found = spec.id if spec else "no named environment"
        if found != atari_env_id(game):
            raise RecordingsError(f"the Minari data set {dataset_id} is of {found}, not {atari_env_id(game)}")
        frame_skip, expected = spec.kwargs.get("frameskip"), PREPROCESSING["frame_skip"]
        if frame_skip != expected:
            raise RecordingsError(f"the Minari data set {dataset_id} has a frame skip of {frame_skip}, not {expected}")
        if space.dtype != np.uint8 or len(space.shape or ()) != 3 or space.shape[-1] != 3:
            raise RecordingsError(f"the Minari data set {dataset_id} holds {space}, not RGB frames")

    def __len__(self) -> int:
        return int(self.dataset.total_episodes)

    def frames(self, number: int, limit: int) -> np.ndarray:
        """The first frames of one recorded game, read alone.

        :param number: of the game in the data set
        :param limit: most frames to give
        :return: uint8 (length, 84, 84, 3)
        """
        (episode,) = self.dataset.iterate_episodes([self.dataset.episode_indices[number]])
        return resize(episode.observations[:limit], PREPROCESSING["screen_size"])


class Roster:
    """The sources of a collection, opened: who plays which episode.

    :param sources: the sources
    :param environment: what all play
    :param action_space: of the environment
    :param checkpoint: keypoint checkpoint, for agents that see keypoints
    :param seed: of the collection
    :raises ImportError: when a source needs a package that is not installed
    :raises AgentFileError: when an agent is missing, broken or plays another game
    :raises OwnEnvironmentError: when an agent plays and actions are not Discrete
    :raises RecordingsError: when a data set is missing or of another game
    :raises ValueError: when a checkpoint is given and no agent sees keypoints
    """

    def __init__(
        self,
        sources: Sequence[Source],
        environment: NamedEnvironment,
        action_space: spaces.Space,
        checkpoint: Path | None,
        seed: int,
    ) -> None:
        self.sources, self.seed = sources, seed
        self.opened: list[FrameAgent | MinariRecordings | None] = []
        for name, _ in sources:
            if name == RANDOM:
                self.opened.append(None)
            elif name.startswith(MINARI):
                self.opened.append(MinariRecordings(name.removeprefix(MINARI), environment.name))
            else:
                agent = FrameAgent(agent_file(name), checkpoint)
                agent.require_fit(environment, require_discrete_actions(action_space, environment.name))
                self.opened.append(agent)
        if checkpoint is not None and not any(isinstance(one, FrameAgent) and one.detector for one in self.opened):
            raise ValueError(f"the checkpoint {checkpoint} would not be used: no player sees keypoints")

    def player(self, episode: int) -> FrameAgent | MinariRecordings | None:
        """Who plays an episode; None: random actions."""
        return self.opened[sources_of_episodes(self.sources, self.seed, episode + 1)[-1]]

    def recording(self, episode: int) -> int | None:
        """Number of the recorded game that an episode is; None where its data set has been used up.

        Each recorded game is used once, in an order that depends on the seed.
        """
        of_episodes = sources_of_episodes(self.sources, self.seed, episode + 1)
        source = int(of_episodes[-1])
        rank = int((of_episodes == source).sum()) - 1
        recordings = self.opened[source]
        assert isinstance(recordings, MinariRecordings)
        order = np.random.default_rng((self.seed, source)).permutation(len(recordings))
        return int(order[rank]) if rank < len(order) else None


def agent_file(name: str) -> Path:
    """A saved agent's file: the file of that name, or else of the Hugging Face repository, downloaded.

    :param name: a path, or a repository of RL Zoo, e.g. "sb3/dqn-MsPacmanNoFrameskip-v4", whose agent is in the file
        `<algorithm>-<environment>.zip` named as the repository
    :raises ImportError: when huggingface_sb3 is not installed
    :raises AgentFileError: when there is neither
    """
    path = Path(name)
    if path.is_file():
        return path
    if path.suffix == ".zip" or len(path.parts) != 2 or path.is_absolute() or path.parts[0] in (".", ".."):
        raise AgentFileError(f"no saved agent at {name}")
    hub = _import("huggingface_sb3", f"{name} is no file, and agents of the Hugging Face hub need")
    filename = f"{path.name}.zip"
    try:
        return Path(hub.load_from_hub(repo_id=name, filename=filename))
    except (OSError, ValueError) as error:  # the hub's errors are of these kinds
        raise AgentFileError(
            f"{name} is no file, and its {filename} could not be had from the Hugging Face hub: {_first_line(error)}"
        ) from error


def _import(module: str, who_needs: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise missing_package(f"{who_needs} {module}", "players") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
