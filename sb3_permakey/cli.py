"""The command line: sb3-permakey collect | pretrain | show | score | checkpoints | train | evaluate."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from sb3_permakey.atari import UnknownGameError, plain_game_name
from sb3_permakey.distractors import DistractorKind
from sb3_permakey.evaluation import FRAMES_PER_SECOND, EvaluateConfig, evaluate, score_table
from sb3_permakey.figures import keypoint_animation, keypoint_panel, save_gif, save_png
from sb3_permakey.keypoints import KeypointDetector, PermaKey, checkpoint_table, shipped_checkpoints
from sb3_permakey.pretraining.collect import CollectConfig, collect
from sb3_permakey.pretraining.config import PRESETS, PretrainConfig
from sb3_permakey.pretraining.frames import FrameStore
from sb3_permakey.pretraining.reader import FrameReader
from sb3_permakey.pretraining.trainer import TrainingDivergedError, pretrain
from sb3_permakey.scores import GroundTruthError, ScoreConfig, keypoint_score_table, score
from sb3_permakey.training import TrainConfig, train
from sb3_permakey.validation import validation_scores


@dataclass(frozen=True)
class ShowConfig:
    """Draw keypoints and error maps on test frames."""

    checkpoint: Path
    """Keypoint checkpoint, a file or a name that `sb3-permakey checkpoints` lists."""
    frames: Path
    """Folder of frames that `collect` or `record_frames` wrote."""
    out: Path
    """PNG file: frames, keypoints with their windows, error maps of each layer."""
    gif: Path | None = None
    """GIF file: keypoints over consecutive frames."""
    columns: int = 6
    """Frames of the PNG."""
    spacing: int = 8
    """Steps between two frames of the PNG."""
    first: int = 100
    """First test frame to show."""
    gif_frames: int = 150
    """Frames of the GIF."""
    readout: Literal["pointnet", "peaks"] | None = None
    """How keypoints are read: by the PointNet, or as the highest peaks of the first layer's error map. Empty: both,
    one under the other in the PNG, side by side in the GIF."""
    distractor: DistractorKind | None = None
    """Bars of noisy Atari, drawn on the frames."""

    def __post_init__(self) -> None:
        for name in ("columns", "spacing", "gif_frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")


@dataclass(frozen=True)
class CheckpointsConfig:
    """List the keypoint checkpoints that come with the package, with their scores."""


def run_collect(config: CollectConfig) -> None:
    """Collect frames."""
    store = collect(config)
    sizes = ", ".join(f"{len(frames)} {split}" for split, frames in store.splits.items())
    _say(f"{config.out}: {len(store.episodes)} episodes of {config.game} ({sizes})")
    _next(f"sb3-permakey pretrain --preset strong --frames {config.out} --out {config.game.lower()}.safetensors")


def run_pretrain(config: PretrainConfig) -> None:
    """Train a keypoint model."""
    checkpoint = pretrain(config)
    if os.environ.get("RANK", "0") != "0":
        return
    logs = checkpoint.with_suffix(".pretraining")
    _say(f"{checkpoint}: keypoint model; {logs}: losses.csv and TensorBoard logs")
    if config.score:
        _score_pretrained(checkpoint, config)
    _next(f"sb3-permakey show --checkpoint {checkpoint} --frames {config.frames_folder} --out keypoints.png")


def _score_pretrained(checkpoint: Path, config: PretrainConfig) -> None:
    """Score a new checkpoint on frames of its game, by each way to read its keypoints."""
    store = FrameStore(config.frames_folder)
    if not store.is_atari:
        _say("not scored: true objects are known of Atari games alone")
        return
    readouts: tuple[Literal["pointnet", "peaks"], ...] = (
        ("pointnet", "peaks") if config.method == "permakey" else ("pointnet",)
    )
    try:
        for readout in readouts:
            picture = checkpoint.with_name(f"{checkpoint.stem}.{readout}.png")
            _say(f"read by {readout}:")
            run_score(
                ScoreConfig(
                    (str(checkpoint),),
                    game_name(store),
                    picture=picture,
                    out=picture.with_suffix(".json"),
                    distractor=config.distractor or store.description.get("distractor"),
                    readout=readout,
                )
            )
    except (ImportError, UnknownGameError, GroundTruthError) as error:
        _say(f"not scored: {error}")


def run_show(config: ShowConfig) -> None:
    """Draw keypoints."""
    detectors = [KeypointDetector(config.checkpoint, readout=config.readout, streaming=True)]
    if config.readout is None and isinstance(detectors[0].model, PermaKey):
        detectors.append(KeypointDetector(config.checkpoint, readout="peaks", streaming=True))
    store = FrameStore(config.frames)
    reader = FrameReader(store, detectors[0].device, config.distractor)
    first = min(config.first, reader.size("test") - 1)
    after = np.arange(first, reader.size("test"))
    shown = reader.frames("test", after[:: config.spacing][: config.columns])
    save_png(config.out, keypoint_panel(detectors, shown))
    _say(f"{config.out}: frames, keypoints and error maps")
    if config.gif:
        consecutive = reader.frames("test", after[: config.gif_frames])
        animations = [keypoint_animation(detector, consecutive) for detector in detectors]
        pictures = [np.concatenate(beside, axis=1) for beside in zip(*animations, strict=True)]
        save_gif(config.gif, pictures, FRAMES_PER_SECOND)
        _say(f"{config.gif}: keypoints over {len(consecutive)} consecutive frames")
    if store.is_atari:
        game = game_name(store)
        readout = f" --readout {config.readout}" if config.readout else ""
        _next(f"sb3-permakey train --game {game} --checkpoint {config.checkpoint}{readout} --out {game.lower()}-agent")
    else:
        _next(f'in Python, PermaKeyObservation(env, "{config.checkpoint}")')


def run_checkpoints(config: CheckpointsConfig) -> None:
    """List the checkpoints that come with the package."""
    _say(checkpoint_table(shipped_checkpoints()))


def game_name(store: FrameStore) -> str:
    """The game of a store's frames, as `make_atari_env` takes it."""
    return plain_game_name(store.description["game"])


def run_score(config: ScoreConfig) -> None:
    """Score keypoints."""
    result = score(config)
    if config.out:
        _say(f"{config.out}: every score with its interval")
    if config.picture:
        _say(f"{config.picture}: frames with objects and keypoints, and the scores")
    _say(keypoint_score_table(result))


def run_train(config: TrainConfig) -> None:
    """Train an agent."""
    best = train(config)
    for step, mean_score in validation_scores(config.out):
        _say(f"validation after {step:>7} steps: mean score {mean_score:.1f}")
    _say(f"{best}: the best agent of these; {config.out / 'tensorboard'}: logs")
    checkpoint = f" --checkpoint {config.checkpoint}" if config.checkpoint else ""
    _next(
        f"sb3-permakey evaluate --game {config.game} --agent {best}{checkpoint} --out {config.out / 'evaluation.json'}"
    )


def run_evaluate(config: EvaluateConfig) -> None:
    """Evaluate an agent."""
    result = evaluate(config)
    _say(f"{config.out}: every game's score" + (f"; {config.video}: the first game" if config.video else ""))
    _say(score_table(result))


COMMANDS: dict[str, tuple[type, Callable[[Any], None]]] = {
    "collect": (CollectConfig, run_collect),
    "pretrain": (PretrainConfig, run_pretrain),
    "show": (ShowConfig, run_show),
    "score": (ScoreConfig, run_score),
    "checkpoints": (CheckpointsConfig, run_checkpoints),
    "train": (TrainConfig, run_train),
    "evaluate": (EvaluateConfig, run_evaluate),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; wrong input ends with one sentence and exit code 2."""
    try:
        given = list(sys.argv[1:] if arguments is None else arguments)
        kinds: dict[str, Any] = {name: kind for name, (kind, _) in COMMANDS.items()}
        kinds["pretrain"] = _pretraining_kind(given)
        config: Any = tyro.extras.subcommand_cli_from_dict(
            kinds,
            config=(tyro.conf.OmitArgPrefixes,),
            prog="sb3-permakey",
            description="Object keypoints for reinforcement learning: collect frames, pretrain keypoints on them, "
            "show and score these, train an agent that sees them, evaluate it. Each command names the next one.",
            args=given,
        )
        run = next(run for kind, run in COMMANDS.values() if isinstance(config, kind))
        run(config)
    except (ValueError, OSError, ImportError, TrainingDivergedError) as error:
        print(f"sb3-permakey: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("sb3-permakey: stopped; the same command goes on where it can", file=sys.stderr)
        sys.exit(130)


def _pretraining_kind(arguments: Sequence[str]) -> type[PretrainConfig]:
    """The settings that the preset among the arguments names: it decides what all other flags are by default."""
    parts = [part for argument in arguments for part in argument.split("=", 1)]
    chosen = [value for flag, value in pairwise(parts) if flag == "--preset" and value in PRESETS]
    return PRESETS[chosen[-1]] if chosen else PretrainConfig


def _say(text: str) -> None:
    print(text, flush=True)


def _next(command: str) -> None:
    print(f"next: {command}", flush=True)
