"""Which keypoint checkpoint a run of `benchmarks.atari100k` needs, where it is, and how it is made."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from benchmarks.keypoints.run import NUM_KEYPOINTS, KeypointsBenchmark, Run, pretrain_config, training_command
from sb3_permakey.envs.distractors import DistractorKind
from sb3_permakey.files import write_json
from sb3_permakey.keypoints.shipped import CheckpointError, locate_checkpoint, shipped_checkpoints
from sb3_permakey.play.collect import CollectConfig, collect
from sb3_permakey.pretraining.config import PretrainConfig
from sb3_permakey.pretraining.trainer import Pretraining

KeypointMethod = Literal["permakey", "transporter", "distilled"]
"""What the keypoints come from; distilled: a student of PermaKey."""
PRETRAINING = KeypointsBenchmark()
"""The recipe of the shipped checkpoints, and the folder where `benchmarks.keypoints` leaves its own."""


class Checkpoint(NamedTuple):
    """A keypoint checkpoint.

    :param path: its file
    :param minutes: how long its training took; None where that is not known
    """

    path: Path
    minutes: float | None


@dataclass(frozen=True)
class WantedCheckpoint:
    """What a run needs a checkpoint of."""

    game: str
    method: KeypointMethod
    noise: Literal["clean", "both"]
    num_keypoints: int

    @property
    def distractor(self) -> DistractorKind | None:
        """The bars on its frames."""
        return None if self.noise == "clean" else self.noise


def pretraining(wanted: WantedCheckpoint, folder: Path = PRETRAINING.folder) -> PretrainConfig:
    """The training of such a checkpoint, with seed 0; a file of `benchmarks.keypoints` where K is the paper's.

    :raises CheckpointError: for a student, which is distilled by a command of its own
    """
    if wanted.method == "distilled":
        raise CheckpointError(
            f"the package has no student of {wanted.game}'s PermaKey ({wanted.noise} frames): distil one by "
            f"`python -m benchmarks.distilled --games {wanted.game} --noise {wanted.noise}`, and take it into the "
            "package by `python -m benchmarks.release`"
        )
    run = Run(wanted.game, wanted.method, wanted.noise, 0)
    config = pretrain_config(run, replace(PRETRAINING, folder=folder), wanted.num_keypoints)
    if wanted.num_keypoints == NUM_KEYPOINTS.get(wanted.game):
        return config
    return replace(config, out=folder / f"{run.name.removesuffix('-0')}-k{wanted.num_keypoints}-0.safetensors")


def find_checkpoint(wanted: WantedCheckpoint, folder: Path = PRETRAINING.folder) -> Checkpoint | None:
    """The package's own checkpoint, or one trained here."""
    for shipped in shipped_checkpoints():
        found = (shipped.game, shipped.method, shipped.noise, shipped.num_keypoints)
        if found == (wanted.game, wanted.method, wanted.distractor, wanted.num_keypoints):
            return Checkpoint(locate_checkpoint(shipped.name), shipped.minutes)
    if wanted.method == "distilled":
        return None
    path = pretraining(wanted, folder).out
    if not path.is_file():
        return None
    log = path.with_suffix(".json")
    return Checkpoint(path, json.loads(log.read_text())["minutes"] if log.is_file() else None)


def require_checkpoint(wanted: WantedCheckpoint, folder: Path = PRETRAINING.folder) -> Checkpoint:
    """The checkpoint.

    :raises CheckpointError: when there is none, with the commands that make it
    """
    found = find_checkpoint(wanted, folder)
    if found is not None:
        return found
    config = pretraining(wanted, folder)
    raise CheckpointError(
        f"no {wanted.method} checkpoint of {wanted.game} ({wanted.noise} frames, {wanted.num_keypoints} keypoints): "
        f"add --pretrain, or make it with `{collect_command(wanted, config)}` and `{pretrain_command(wanted, config)}`"
    )


def collect_command(wanted: WantedCheckpoint, config: PretrainConfig) -> str:
    """The command line that collects the frames."""
    parts = {"game": wanted.game, "out": config.frames, "frames": PRETRAINING.frames}
    return shlex.join(
        ["sb3-permakey", "collect", *(part for name in parts for part in (f"--{name}", str(parts[name])))]
    )


def pretrain_command(wanted: WantedCheckpoint, config: PretrainConfig) -> str:
    """The command line that trains the checkpoint."""
    return training_command(Run(wanted.game, wanted.method, wanted.noise, 0), config)


def pretrain(wanted: WantedCheckpoint, folder: Path = PRETRAINING.folder) -> Checkpoint:
    """Collect frames where there are none, and train the checkpoint."""
    config = pretraining(wanted, folder)
    assert config.frames is not None
    collect(CollectConfig(game=wanted.game, out=config.frames, frames=PRETRAINING.frames))
    training = Pretraining(config)
    path = training.run()
    minutes = training.progress.elapsed_s / 60
    write_json(path.with_suffix(".json"), {"command": pretrain_command(wanted, config), "minutes": minutes})
    return Checkpoint(path, minutes)


def paper_keypoints(game: str) -> int:
    """The paper's K of a game.

    :raises ValueError: for a game that it does not have
    """
    if game not in NUM_KEYPOINTS:
        raise ValueError(f"the paper has no number of keypoints for {game!r}, only for {', '.join(NUM_KEYPOINTS)}")
    return NUM_KEYPOINTS[game]
