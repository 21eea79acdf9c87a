"""How often do keypoints jump, and what does persistence cost? Every frame of some episodes, read in several ways.

    python -m benchmarks.variants persistence

Nothing is trained: every reading is of the same checkpoint. Keypoints are followed from frame to frame as an agent's
are, and scored on every frame.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness.command import run_command
from benchmarks.harness.markdown_blocks import filled
from benchmarks.harness.results import made_before, settings_of
from benchmarks.harness.tables import table
from benchmarks.keypoints.run import shipped_name
from sb3_permakey.files import write_atomically, write_json
from sb3_permakey.keypoints import KeypointDetector, Keypoints, ReadoutConfig, checkpoint_exists
from sb3_permakey.keypoints.motion import JUMP
from sb3_permakey.provenance import provenance
from sb3_permakey.scores import LabelledFrames, ScoreConfig, labelled_frames
from sb3_permakey.scores.measures import Tally, box_distances, pixel_places, precision, recall
from sb3_permakey.scores.statistics import pooled_estimates

NOTES = Path(__file__).with_name("persistence.md")
PERSISTENCES = (1.0, 1.5, 2.0, 3.0)
READINGS = {"peaks": None, "peaks of the contrast": 18.0}
"""Sides of the square of the contrast, in pixels."""


@dataclass(frozen=True)
class PersistenceBenchmark:
    """Read keypoints of consecutive frames with several persistences."""

    games: tuple[str, ...] = ("BattleZone", "MsPacman", "Seaquest", "Frostbite")
    """Games; each needs a checkpoint that comes with the package."""
    episodes: int = 6
    """Episodes of random play."""
    longest: int = 400
    """Steps of each that are read."""
    results: Path = Path("benchmarks/results/persistence")
    """Where the JSON files are, one a game; games that it holds are not done again."""
    table: Path = Path("benchmarks/results/persistence.md")
    """Markdown file to write."""

    def __post_init__(self) -> None:
        for game in self.games:
            if not checkpoint_exists(shipped_name(game, "permakey", "clean")):
                raise ValueError(f"there is no checkpoint of {game} in the package")


def consecutive(game: str, episodes: int, longest: int) -> tuple[LabelledFrames, np.ndarray]:
    """Frames of play with their objects, each the first of a pair, and the rows that are read, episode by episode."""
    played = labelled_frames(game, episodes=episodes, frames=episodes * 1000, spacing=1)
    rows = [np.flatnonzero(played.episodes == episode)[:longest] for episode in np.unique(played.episodes)]
    return played, np.concatenate(rows)


def followed(detector: KeypointDetector, frames: np.ndarray, starts: np.ndarray) -> Keypoints:
    """Keypoints of frames in the order of time, each in its place of the order."""
    tracker = detector.tracker()
    assert tracker is not None
    found = [
        tracker.track(detector.candidates(frame[None]), [bool(start)])
        for frame, start in zip(frames, starts, strict=True)
    ]
    return Keypoints(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def figures(keypoints: Keypoints, played: LabelledFrames, rows: np.ndarray, starts: np.ndarray) -> dict[str, Any]:
    """How keypoints hit, with intervals over episodes, and how steady they are."""
    tallies: dict[str, list[Tally]] = {"precision": [], "recall": []}
    for centers, row in zip(keypoints.centers, rows, strict=True):
        near = box_distances(pixel_places(centers), played.objects[row][0].boxes) <= ScoreConfig.margin_px
        tallies["precision"].append(precision(near))
        tallies["recall"].append(recall(near))
    pooled = {
        name: Tally(*(np.array(parts, dtype=float) for parts in zip(*of_frames, strict=True)))
        for name, of_frames in tallies.items()
    }
    goes_on = ~starts[1:]
    moved = np.linalg.norm(np.diff(keypoints.centers, axis=0), axis=-1)[goes_on]
    features = keypoints.features - keypoints.features.mean(axis=-1, keepdims=True)
    features /= np.sqrt(keypoints.features.var(axis=-1, keepdims=True) + 1e-5)
    change = np.square(np.diff(features, axis=0)).sum(axis=-1)[goes_on].mean() / 2
    spread = np.square(features - features.reshape(-1, features.shape[-1]).mean(axis=0)).sum(axis=-1).mean()
    scores = {name: list(estimate) for name, estimate in pooled_estimates(pooled, played.episodes[rows]).items()}
    return {**scores, "jumps": float((moved > JUMP).mean()), "features_change": float(change / spread)}


def measure(game: str, episodes: int, longest: int) -> dict[str, Any]:
    """Figures of all readings."""
    played, rows = consecutive(game, episodes, longest)
    starts = np.diff(played.episodes[rows], prepend=-1) != 0
    found = {}
    for (name, surround_px), persistence in itertools.product(READINGS.items(), PERSISTENCES):
        reading = ReadoutConfig("peaks", surround_px=surround_px, persistence=persistence)
        checkpoint = shipped_name(game, "permakey", "clean")
        detector = KeypointDetector(checkpoint, device="cpu", streaming=True, readout=reading)
        keypoints = followed(detector, played.frames[rows, 0], starts)
        found[f"{name}, persistence {persistence:g}"] = figures(keypoints, played, rows, starts)
    return {"frames": len(rows), "variants": found}


def report(results: Path) -> str:
    """The tables of all games."""
    lines: list[str] = []
    for path in sorted(results.glob("*.json")):
        result = json.loads(path.read_text())
        rows = [_row(name, one) for name, one in result["variants"].items()]
        titles = ["reading", "F1", "precision", "recall", "jumps", "features' change"]
        lines += ["", f"## {result['game']}, {result['frames']:,} frames", "", *table(titles, rows)]
        lines += ["", f"`{result['command']}`, commit {result['commit']}"]
    return filled(NOTES, games=lines[1:] or "None yet.")


def _row(name: str, found: dict[str, Any]) -> list[str]:
    hits = [f"{found[score][0]:.2f}" for score in ("f1", "precision", "recall")]
    return [name, *hits, f"{found['jumps']:.3f}", f"{found['features_change']:.2f}"]


def main(config: PersistenceBenchmark) -> None:
    """Read the games that the folder does not hold yet, and write the tables."""
    settings = settings_of(config, "episodes", "longest")
    for game in config.games:
        path = config.results / f"{game.lower()}.json"
        if made_before(path, settings):
            continue
        found = measure(game, config.episodes, config.longest)
        threads = torch.get_num_threads()
        write_json(path, {"game": game, "config": settings, **found, "threads": threads, **provenance()})
        print(path, flush=True)
    write_atomically(config.table, report(config.results).encode())
    print(config.table)


def command() -> None:
    """The command line."""
    run_command("variants.persistence", PersistenceBenchmark, main)


if __name__ == "__main__":
    command()
