"""Scores of keypoint checkpoints on one game, as a table, JSON and a picture."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from sb3_permakey.envs.atari import PREPROCESSING, atari_env_id, plain_game_name
from sb3_permakey.envs.distractors import DistractorKind
from sb3_permakey.figures import save_png
from sb3_permakey.files import locked_file, read_json, require_writable, write_json
from sb3_permakey.keypoints import KeypointDetector, ReadoutConfig, model_fingerprint, warn_of_another_game
from sb3_permakey.play.players import RANDOM, parse_sources, require_agents
from sb3_permakey.provenance import provenance
from sb3_permakey.scores.labelled import MOST_EPISODES, MOST_SCORING_SEED, LabelledFrames, labelled_frames
from sb3_permakey.scores.measures import bars_area_share
from sb3_permakey.scores.pictures import score_picture
from sb3_permakey.scores.statistics import (
    Estimate,
    grid_points,
    random_points,
    score_categories,
    score_keypoints,
    score_stability,
)
from sb3_permakey.settings import NO_DEFAULT, require_at_least, require_range, require_seed, require_suffix

RANDOM_DRAWS = 10
BATCH_SIZE = 32
Centers = tuple[np.ndarray, np.ndarray]
"""Points on the first and on the second frames of all pairs, (..., N, K, 2) each."""


@dataclass(frozen=True)
class ScoreConfig:
    """Score keypoints against the objects that the game shows, beside random points and a fixed grid."""

    checkpoints: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT...", help_behavior_hint="")
    ]
    """Keypoint checkpoints; several are the same method with several seeds, whose stability is scored too."""
    game: str
    """Game, e.g. MsPacman."""
    out: Annotated[Path | None, NO_DEFAULT] = None
    """JSON file to write."""
    picture: Annotated[Path | None, NO_DEFAULT] = None
    """PNG file: frames with objects and keypoints, bars of the scores."""
    episodes: int = 20
    """Episodes to play."""
    policy: tuple[str, ...] = (RANDOM,)
    """Who plays them, as in collect: "random", or a saved agent's file or repository, each with a share if wanted."""
    agent_checkpoint: Annotated[Path | None, NO_DEFAULT] = None
    """Keypoint checkpoint, for a player that sees keypoints."""
    epsilon: float = 0.1
    """Probability of a random action beside a player's."""
    frames: int = 500
    """Frames to score at most, an even selection of the episodes."""
    spacing: int = 4
    """Steps between two frames at least."""
    margin_px: float = 3.0
    """A keypoint within this distance of an object's box is on it, in pixels of the 84x84 frame."""
    distractor: Annotated[DistractorKind | None, NO_DEFAULT] = None
    """Bars of noisy Atari on the frames."""
    readout: ReadoutConfig = field(default_factory=ReadoutConfig)
    """How keypoints are read."""
    seed: int = 0
    """Seed of episodes, random points and bootstrap."""
    device: str = "auto"
    """Where the networks run."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """How they compute."""

    def __post_init__(self) -> None:
        if not self.checkpoints:
            raise ValueError("name at least one checkpoint to score")
        require_range(1, MOST_EPISODES, episodes=self.episodes)
        require_at_least(1, frames=self.frames, spacing=self.spacing)
        require_at_least(0, margin_px=self.margin_px)
        require_range(0, 1, epsilon=self.epsilon)
        require_seed(self.seed, MOST_SCORING_SEED)
        require_suffix(".png", picture=self.picture)
        if self.epsilon != type(self).epsilon:
            require_agents("epsilon", self.policy)
        parse_sources(self.policy)


def score(config: ScoreConfig) -> dict[str, Any]:
    """Score checkpoints, write JSON and picture; a JSON file of the same scores is read instead.

    With several checkpoints the "keypoints" are all of theirs pooled. The intervals say how much the episodes matter,
    not how much the checkpoints' seeds do; the single checkpoints' scores show these.

    :param config: what to score
    :return: the content of the JSON file
    :raises ImportError: when OCAtari is not installed
    :raises ValueError: when checkpoints do not fit together or the game, or the JSON file holds other scores
    :raises WriteError: when JSON or picture cannot be written, or another run is writing the JSON file
    """
    game = atari_env_id(config.game)
    for checkpoint in config.checkpoints:
        warn_of_another_game(checkpoint, plain_game_name(game))
    detectors = [_detector(config, checkpoint) for checkpoint in config.checkpoints]
    wanted = _settings(config, game, detectors)
    if config.out and config.out.exists():
        found = read_json(config.out)
        if found.get("settings") != wanted or "categories" not in found:
            raise ValueError(f"{config.out} holds other scores; give another --out")
        if not config.picture or config.picture.exists():
            return found
    require_writable(config.out, config.picture)
    with locked_file(config.out) if config.out else nullcontext():
        return _score(config, wanted, detectors)


def _score(config: ScoreConfig, wanted: dict[str, Any], detectors: list[KeypointDetector]) -> dict[str, Any]:
    """Play, detect, and write JSON and picture."""
    labelled = labelled_frames(
        config.game,
        episodes=config.episodes,
        frames=config.frames,
        spacing=config.spacing,
        seed=config.seed,
        distractor=config.distractor,
        policy=config.policy,
        agent_checkpoint=config.agent_checkpoint,
        epsilon=config.epsilon,
    )
    detected = [detect_pairs(detector, labelled.frames) for detector in detectors]
    result = {
        "settings": wanted,
        "frames": len(labelled.frames),
        "episodes": len(np.unique(labelled.episodes)),
        "dropped_frames": labelled.dropped,
        "objects_per_frame": _objects_per_frame(labelled),
        "bars_area_share": _bars_area_share(labelled),
        **_all_scores(config, labelled, detectors[0].config.window_std, detected),
        "provenance": provenance(),
    }
    if config.picture:
        centers, window_std = detected[0][0], detectors[0].config.window_std
        save_png(config.picture, score_picture(labelled, centers, window_std, result["scores"]))
    if config.out:
        write_json(config.out, result)
    return result


def detect_pairs(detector: KeypointDetector, frames: np.ndarray) -> Centers:
    """Keypoints of pairs of consecutive frames uint8 (N, 2, 84, 84, 3): (N, K, 2) of the first and of the second.

    Peaks keep their identities from the first frame to the second as they do in an environment.
    """
    tracker = detector.tracker()
    halves: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for start in range(0, len(frames), BATCH_SIZE):
        batch = frames[start : start + BATCH_SIZE]
        for half, found in enumerate(halves):
            keypoints = detector.candidates(batch[:, half])
            if tracker is not None:
                keypoints = tracker.track(keypoints, [half == 0] * len(batch))
            found.append(keypoints.centers)
    return np.concatenate(halves[0]), np.concatenate(halves[1])


def _detector(config: ScoreConfig, checkpoint: str) -> KeypointDetector:
    detector = KeypointDetector(
        checkpoint,
        device=config.device,
        precision=config.precision,
        streaming=True,
        readout=config.readout,
    )
    detector.check_channels(3)
    return detector


def _settings(config: ScoreConfig, game: str, detectors: list[KeypointDetector]) -> dict[str, Any]:
    """What determines the scores, as JSON gives it back."""
    counts = {detector.num_keypoints for detector in detectors}
    widths = {detector.config.window_std for detector in detectors}
    if len(counts) > 1 or len(widths) > 1:
        raise ValueError(
            "checkpoints scored together must have the same number of keypoints and width of windows, "
            f"not {sorted(counts)} keypoints and widths {sorted(widths)}"
        )
    readouts = {detector.readout.kind.name for detector in detectors}
    if len(readouts) > 1:
        raise ValueError(
            f"checkpoints scored together must be read in the same way, not by {' and '.join(sorted(readouts))}: "
            "name a readout"
        )
    settings = asdict(config)
    settings |= asdict(detectors[0].readout)
    for name in ("out", "picture", "device"):
        del settings[name]
    settings |= {
        "checkpoints": list(config.checkpoints),
        "agent_checkpoint": str(config.agent_checkpoint) if config.agent_checkpoint else None,
        "tensors_sha256": [model_fingerprint(detector.model) for detector in detectors],
        "game": game,
        "preprocessing": PREPROCESSING,
    }
    return json.loads(json.dumps(settings))


def _all_scores(
    config: ScoreConfig, labelled: LabelledFrames, window_std: float, detected: list[Centers]
) -> dict[str, Any]:
    """Scores of each checkpoint, and of all of them, random points and grid."""

    def scores(centers: Centers) -> dict[str, Any]:
        estimates = score_keypoints(*centers, labelled, window_std, margin_px=config.margin_px, seed=config.seed)
        return {name: _as_json(estimate) for name, estimate in estimates.items()}

    def categories(centers: Centers) -> dict[str, Any]:
        estimates = score_categories(*centers, labelled, margin_px=config.margin_px, seed=config.seed)
        return {
            category: {name: _as_json(estimate) for name, estimate in of_category.items()}
            for category, of_category in estimates.items()
        }

    count, num_keypoints = detected[0][0].shape[:2]
    pooled = tuple(np.stack(halves) for halves in zip(*detected, strict=True))
    drawn = random_points(2 * RANDOM_DRAWS, count, num_keypoints, config.seed)
    grid = np.broadcast_to(grid_points(num_keypoints), (count, num_keypoints, 2))
    points: dict[str, Centers] = {
        "keypoints": (pooled[0], pooled[1]),
        "random": (drawn[:RANDOM_DRAWS], drawn[RANDOM_DRAWS:]),
        "grid": (grid, grid),
    }
    result = {name: scores(centers) for name, centers in points.items()}
    if len(detected) > 1:
        for name in ("keypoints", "random"):
            stability = score_stability(points[name][0], labelled.episodes, seed=config.seed)
            result[name]["stability"] = _as_json(stability)
    alone = [result["keypoints"]] if len(detected) == 1 else [scores(centers) for centers in detected]
    return {
        "scores": result,
        "categories": {name: categories(centers) for name, centers in points.items()},
        "checkpoints": [
            {"checkpoint": checkpoint, "scores": figures}
            for checkpoint, figures in zip(config.checkpoints, alone, strict=True)
        ],
    }


def _objects_per_frame(labelled: LabelledFrames) -> dict[str, float]:
    categories = [category for first, _ in labelled.objects for category in first.categories]
    return {name: categories.count(name) / len(labelled.objects) for name in sorted(set(categories))}


def _bars_area_share(labelled: LabelledFrames) -> float | None:
    if labelled.bars is None:
        return None
    return float(np.mean([bars_area_share(top, left) for top, left in zip(*labelled.bars, strict=True)]))


def _as_json(estimate: Estimate) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in estimate._asdict().items()}
