"""Frames of play with the objects that they show."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from sb3_permakey.envs.atari import make_atari_env
from sb3_permakey.envs.distractors import INFO_KEY, BarPlaces, DistractorKind
from sb3_permakey.envs.named import NamedEnvironment
from sb3_permakey.play.players import MINARI, RANDOM, EpisodeActions, MinariRecordings, Roster, parse_sources
from sb3_permakey.scores.ground_truth import FrameObjects, GroundTruth, GroundTruthError
from sb3_permakey.settings import MOST_SEED, require_at_least, require_range, require_seed

FIRST_SCORING_SEED = 3_000_000
"""Seeds of scored episodes start here, above those of training, validation and test."""
MOST_EPISODES = 1_000
"""Episodes that one seed of `labelled_frames` has for itself."""
MOST_SCORING_SEED = (MOST_SEED - FIRST_SCORING_SEED) // MOST_EPISODES - 1
"""So that all its episodes have seeds that an emulator takes."""
MAX_EPISODE_STEPS = 1_000


@dataclass(frozen=True)
class LabelledFrames:
    """N pairs of consecutive frames, one agent step apart, with their objects."""

    game: str
    frames: np.ndarray
    """uint8 (N, 2, 84, 84, 3)."""
    objects: list[tuple[FrameObjects, FrameObjects]]
    """Of both frames of each pair."""
    episodes: np.ndarray
    """int (N,), the episode that each pair is from."""
    bars: BarPlaces | None = None
    """Where the distractor's bars are in the pairs' first frames, (N,) each."""
    dropped: int = 0
    """Pairs that were left out because OCAtari failed on them."""


@dataclass(frozen=True)
class _Pair:
    frames: tuple[np.ndarray, np.ndarray]
    objects: tuple[FrameObjects, FrameObjects] | None
    bars: tuple[int, int] | None


def labelled_frames(
    game: str,
    *,
    episodes: int = 20,
    frames: int = 500,
    spacing: int = 4,
    seed: int = 0,
    distractor: DistractorKind | None = None,
    policy: Sequence[str] = (RANDOM,),
    agent_checkpoint: Path | None = None,
    epsilon: float = 0.1,
) -> LabelledFrames:
    """Play as frame collection does, usually at random with actions that last 1 to 8 steps, and keep pairs of frames.

    Of each episode, cut after 1,000 steps, every `spacing`-th step and the one after it are a pair; of the pairs that
    exceed the episode's share of `frames`, an even selection stays. Episodes too short for their share make the whole
    smaller.

    :param game: game's name
    :param episodes: episodes to play, at most 1,000
    :param frames: pairs to keep at most
    :param spacing: steps from a pair to the next
    :param seed: seed of the whole
    :param distractor: bars on the frames
    :param policy: players as `parse_sources` takes them, but recordings, which have no emulator to read objects from
    :param agent_checkpoint: keypoint checkpoint, for players that see keypoints
    :param epsilon: probability of a random action beside a player's
    :raises ImportError: when OCAtari is not installed
    :raises ValueError: for players that cannot play
    :raises GroundTruthError: when OCAtari does not know the game, or fails on every frame
    """
    require_range(1, MOST_EPISODES, episodes=episodes)
    require_at_least(1, frames=frames, spacing=spacing)
    require_seed(seed, MOST_SCORING_SEED)
    with closing(make_atari_env(game, training=False, distractor=distractor)) as env:
        truth = GroundTruth(env, game)
        sources = parse_sources(policy)
        if any(source.name.startswith(MINARI) for source in sources):
            raise ValueError("recordings cannot be scored: objects are read from the emulator that plays")
        roster = Roster(sources, NamedEnvironment(game), env.action_space, agent_checkpoint, seed)
        share = -(-frames // episodes)
        kept: list[_Pair] = []
        numbers: list[int] = []
        dropped = 0
        for episode in tqdm(range(episodes), desc=f"playing {truth.game}", unit="episode"):
            player = roster.player(episode)
            assert not isinstance(player, MinariRecordings)
            episode_seed = FIRST_SCORING_SEED + seed * MOST_EPISODES + episode
            actions = EpisodeActions(player, env.action_space, epsilon, np.random.default_rng(episode_seed))
            played = _play(env, truth, episode_seed, actions, spacing)
            good = [pair for pair in played if pair.objects is not None]
            dropped += len(played) - len(good)
            chosen = evenly_spread(len(good), min(share, frames - len(kept)))
            kept.extend(good[index] for index in chosen)
            numbers.extend([episode] * len(chosen))
    if not kept:
        reason = "OCAtari fails on every frame" if dropped else f"no episode lasts {spacing + 1} steps"
        raise GroundTruthError(f"no frames of {truth.game} to score: {reason}")
    bars = [pair.bars for pair in kept if pair.bars is not None]
    return LabelledFrames(
        game=truth.game,
        frames=np.stack([np.stack(pair.frames) for pair in kept]),
        objects=[pair.objects for pair in kept if pair.objects is not None],
        episodes=np.array(numbers),
        bars=BarPlaces(*np.array(bars).T) if bars else None,
        dropped=dropped,
    )


def evenly_spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` of the indices 0 to count - 1, the middles of as many equal parts."""
    wanted = min(count, wanted)
    return [(2 * index + 1) * count // (2 * wanted) for index in range(wanted)]


def _play(env: gym.Env, truth: GroundTruth, seed: int, actions: EpisodeActions, spacing: int) -> list[_Pair]:
    """The pairs of one episode."""
    frame, info = env.reset(seed=seed)
    truth.reset()
    pairs: list[_Pair] = []
    objects: FrameObjects | None = None
    bars: tuple[int, int] | None = None
    for step in range(1, MAX_EPISODE_STEPS + 1):
        next_frame, reward, terminated, truncated, info = env.step(actions.next(frame, info))
        actions.note(float(reward))
        if terminated or truncated:
            break
        is_second = step > spacing and (step - 1) % spacing == 0
        next_objects = _objects(truth, wanted=is_second or step % spacing == 0)
        if is_second:
            both = (objects, next_objects) if objects is not None and next_objects is not None else None
            pairs.append(_Pair((frame, next_frame), both, bars))
        places = info.get(INFO_KEY)
        bars = (places["top"], places["left"]) if places else None
        frame, objects = next_frame, next_objects
    return pairs


def _objects(truth: GroundTruth, wanted: bool) -> FrameObjects | None:
    """Follow the game; the objects where they are wanted and OCAtari does not fail."""
    try:
        truth.step()
        return truth.objects() if wanted else None
    except GroundTruthError:
        return None
