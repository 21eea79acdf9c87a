"""`sb3-permakey pretrain`: a keypoint model, from frames that are there or are collected first, and its scores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from sb3_permakey.commands import score
from sb3_permakey.commands.output import name_next, say
from sb3_permakey.envs.atari import UnknownGameError
from sb3_permakey.files import require_writable
from sb3_permakey.frames.store import FrameStore
from sb3_permakey.keypoints import READOUTS, ReadoutConfig, load_checkpoint
from sb3_permakey.keypoints.device import resolve_device
from sb3_permakey.play.collect import CollectConfig, collect
from sb3_permakey.pretraining import trainer
from sb3_permakey.pretraining.config import PRESETS, PretrainConfig
from sb3_permakey.scores import GroundTruthError, ScoreConfig


def run(config: PretrainConfig) -> None:
    """Train a keypoint model."""
    before = _written_at(config.out)
    checkpoint = pretrain(config)
    if os.environ.get("RANK", "0") != "0":
        return
    logs = checkpoint.with_suffix(".pretraining")
    is_new = _written_at(checkpoint) != before
    say(
        f"{checkpoint}: keypoint model{'' if is_new else ', finished before: nothing was left to train'}; "
        f"{logs}: losses.csv and TensorBoard logs"
    )
    if config.score:
        _score(checkpoint, config, is_new)
    name_next("show", "--checkpoint", checkpoint, "--frames", config.frames_folder, "--out", "keypoints.png")


def pretrain(config: PretrainConfig) -> Path:
    """Train a keypoint model by `trainer.pretrain`, on frames that are collected first where a game or an env is named.

    :param config: the run's settings
    :return: path of the checkpoint
    :raises ValueError: when several processes would collect the frames, or the device is not there
    :raises FrameStoreError: when the frames are missing, broken or made with other preprocessing
    :raises StateError: when the folder of the run belongs to one with other settings
    :raises CheckpointError: when `frozen_from` names no good checkpoint or one with other settings
    :raises WriteError: when frames, checkpoint or state cannot be written, or another run is writing them
    """
    if config.frames is None:
        if "WORLD_SIZE" in os.environ:
            raise ValueError("collect the frames first: several processes cannot share one collection")
        # What can be told before the frames are collected.
        resolve_device(config.device)
        require_writable(config.out)
        if config.frozen_from:
            load_checkpoint(config.frozen_from)
        collect(CollectConfig(config.game, config.env, out=config.frames_folder, frames=config.collect_frames))
    return trainer.pretrain(config)


def kind_of(arguments: Sequence[str]) -> type[PretrainConfig]:
    """The settings that the preset among the arguments names: it decides what all other flags are by default."""
    parts = [part for argument in arguments for part in argument.split("=", 1)]
    chosen = [value for flag, value in pairwise(parts) if flag == "--preset" and value in PRESETS]
    return PRESETS[chosen[-1]] if chosen else PretrainConfig


def _written_at(path: Path) -> int | None:
    """When a file was written, in nanoseconds; None where there is none."""
    return path.stat().st_mtime_ns if path.exists() else None


def _score(checkpoint: Path, config: PretrainConfig, is_new: bool) -> None:
    """Score a checkpoint on frames of its game, by each way to read its keypoints; a new one's old scores are gone."""
    store = FrameStore(config.frames_folder)
    if not store.is_atari:
        say("not scored: true objects are known of Atari games alone")
        return
    model = load_checkpoint(checkpoint)
    try:
        for readout in (kind.name for kind in READOUTS.values() if kind.reads(model)):
            picture = checkpoint.with_name(f"{checkpoint.stem}.{readout}.png")
            if is_new:
                for path in (picture, picture.with_suffix(".json")):
                    path.unlink(missing_ok=True)
            say(f"read by {readout}:")
            score.run(
                ScoreConfig(
                    (str(checkpoint),),
                    store.game,
                    picture=picture,
                    out=picture.with_suffix(".json"),
                    distractor=config.distractor or store.description.get("distractor"),
                    readout=ReadoutConfig(readout),
                )
            )
    except (ImportError, UnknownGameError, GroundTruthError) as error:
        say(f"not scored: {error}")
