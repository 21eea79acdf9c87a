"""What a run of `benchmarks.atari100k` keeps while it trains: seconds of each phase, and the games of training."""

from __future__ import annotations

import json
import time
from pathlib import Path

from stable_baselines3.common.callbacks import BaseCallback

from sb3_permakey.files import write_json
from sb3_permakey.training.validation import Validation

SECONDS, GAMES = "seconds.json", "training_games.json"


class TimedValidation(Validation):
    """Validation that writes the seconds of learning and of validation into the run's folder."""

    def _init_callback(self) -> None:
        super()._init_callback()
        path = self.folder / SECONDS
        self.seconds = json.loads(path.read_text()) if path.exists() else {"training": 0.0, "validation": 0.0}
        self.since = time.monotonic()

    def lap(self, phase: str) -> None:
        """Count the time since the last call for a phase."""
        now = time.monotonic()
        self.seconds[phase] += now - self.since
        self.since = now

    def validate(self) -> float:
        """Play the games of a validation; their mean score."""
        self.lap("training")
        score = super().validate()
        self.lap("validation")
        write_json(self.folder / SECONDS, self.seconds)
        minutes = sum(self.seconds.values()) / 60
        print(f"{self.folder.name}: {self.num_timesteps} steps, {minutes:.1f} min, validation {score:.0f}", flush=True)
        return score


class TrainingGames(BaseCallback):
    """Writes after which agent step each whole game of the training ended, and its score.

    :param path: JSON file; one that is there goes on
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def _init_callback(self) -> None:
        self.games = json.loads(self.path.read_text()) if self.path.exists() else {"steps": [], "scores": []}

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self.games["steps"].append(self.num_timesteps)
                self.games["scores"].append(float(info["episode"]["r"]))
                write_json(self.path, self.games)
        return True
