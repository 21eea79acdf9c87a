"""The command line: sb3-permakey collect | pretrain | show | score | checkpoints | train | evaluate."""

from __future__ import annotations

import io
import json
import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import tyro

from sb3_permakey.commands.show import ShowConfig, show
from sb3_permakey.envs.atari import UnknownGameError, plain_game_name
from sb3_permakey.frames.store import FrameStore
from sb3_permakey.keypoints import READOUTS, ReadoutConfig, checkpoint_table, load_checkpoint, shipped_checkpoints
from sb3_permakey.play.collect import CollectConfig, collect
from sb3_permakey.play.evaluation import EvaluateConfig, evaluate, score_table
from sb3_permakey.pretraining.config import PRESETS, PretrainConfig
from sb3_permakey.pretraining.trainer import TrainingDivergedError, pretrain
from sb3_permakey.scores import GroundTruthError, ScoreConfig, keypoint_score_table, score
from sb3_permakey.training.run import TrainConfig, train
from sb3_permakey.training.run_folder import RUN
from sb3_permakey.training.validation import validation_scores


@dataclass(frozen=True)
class CheckpointsConfig:
    """List the keypoint checkpoints that come with the package, with their scores."""


def run_collect(config: CollectConfig) -> None:
    """Collect frames."""
    store = collect(config)
    sizes = ", ".join(f"{len(frames)} {split}" for split, frames in store.splits.items())
    _say(f"{config.out}: {len(store.episodes)} episodes of {game_name(store)} ({sizes})")
    out = f"{game_name(store).lower()}.safetensors"
    _next("pretrain", "--preset", "strong", "--frames", config.out, "--out", out)


def run_pretrain(config: PretrainConfig) -> None:
    """Train a keypoint model."""
    before = _written_at(config.out)
    checkpoint = pretrain(config)
    if os.environ.get("RANK", "0") != "0":
        return
    logs = checkpoint.with_suffix(".pretraining")
    is_new = _written_at(checkpoint) != before
    _say(
        f"{checkpoint}: keypoint model{'' if is_new else ', finished before: nothing was left to train'}; "
        f"{logs}: losses.csv and TensorBoard logs"
    )
    if config.score:
        _score_pretrained(checkpoint, config, is_new)
    _next("show", "--checkpoint", checkpoint, "--frames", config.frames_folder, "--out", "keypoints.png")


def _written_at(path: Path) -> int | None:
    """When a file was written, in nanoseconds; None where there is none."""
    return path.stat().st_mtime_ns if path.exists() else None


def _score_pretrained(checkpoint: Path, config: PretrainConfig, is_new: bool) -> None:
    """Score a checkpoint on frames of its game, by each way to read its keypoints; a new one's old scores are gone."""
    store = FrameStore(config.frames_folder)
    if not store.is_atari:
        _say("not scored: true objects are known of Atari games alone")
        return
    model = load_checkpoint(checkpoint)
    try:
        for readout in (kind.name for kind in READOUTS.values() if kind.reads(model)):
            picture = checkpoint.with_name(f"{checkpoint.stem}.{readout}.png")
            if is_new:
                for path in (picture, picture.with_suffix(".json")):
                    path.unlink(missing_ok=True)
            _say(f"read by {readout}:")
            run_score(
                ScoreConfig(
                    (str(checkpoint),),
                    game_name(store),
                    picture=picture,
                    out=picture.with_suffix(".json"),
                    distractor=config.distractor or store.description.get("distractor"),
                    readout=ReadoutConfig(readout),
                )
            )
    except (ImportError, UnknownGameError, GroundTruthError) as error:
        _say(f"not scored: {error}")


def run_show(config: ShowConfig) -> None:
    """Draw keypoints."""
    store, columns, gif_frames = show(config)
    _say(f"{config.out}: keypoints and error maps on {columns} frames")
    if config.gif:
        _say(f"{config.gif}: keypoints over {gif_frames} consecutive frames")
    settings = config.readout.as_flags()
    if store.is_atari:
        game = game_name(store)
        flags = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", value)]
        _next("train", "--game", game, "--checkpoint", config.checkpoint, *flags, "--out", f"{game.lower()}-agent")
    else:
        arguments = ["env", json.dumps(str(config.checkpoint))]
        arguments += [f"{name}={json.dumps(value)}" for name, value in settings.items()]
        _suggest(f"in Python, PermaKeyObservation({', '.join(arguments)})")


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
    scores = [mean_score for _, mean_score in validation_scores(config.out)]
    which = f"the agent after {config.steps} steps, not validated"
    if scores:
        which = f"the best agent of {len(scores)} validation(s), mean score {max(scores):.1f}"
    _say(f"{best}: {which}; {config.out / 'tensorboard'}: logs")
    _say(f"{config.out / RUN}: with it the same command goes on to more --steps; {_megabytes(config.out / RUN)} MB")
    checkpoint = ("--checkpoint", config.checkpoint) if config.checkpoint else ()
    out = config.out / "evaluation.json"
    _next("evaluate", "--game", config.game, "--agent", best, *checkpoint, "--out", out)


def _megabytes(folder: Path) -> int:
    return round(sum(path.stat().st_size for path in folder.rglob("*")) / 1e6)


def run_evaluate(config: EvaluateConfig) -> None:
    """Evaluate an agent."""
    result = evaluate(config)
    _say(f"{config.out}: every game's score" + (f"; {config.video}: the first game" if config.video else ""))
    _say(score_table(result))


NEXT_VARIABLE = "SB3_PERMAKEY_NEXT"
"""With 0 in this environment variable commands do not name the next one: for scripts that go on by themselves."""
COMMANDS: dict[str, tuple[type, Callable[[Any], None]]] = {
    "collect": (CollectConfig, run_collect),
    "pretrain": (PretrainConfig, run_pretrain),
    "show": (ShowConfig, run_show),
    "score": (ScoreConfig, run_score),
    "checkpoints": (CheckpointsConfig, run_checkpoints),
    "train": (TrainConfig, run_train),
    "evaluate": (EvaluateConfig, run_evaluate),
}


AFTER_STOP = {
    "collect": "the same command goes on with its first unfinished episode",
    "pretrain": "the same command goes on from where it last saved",
    "train": "the same command with --resume goes on from the last checkpoint, if there is one",
}
"""What to do after Ctrl-C; all other commands begin anew."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; wrong input ends with one sentence and exit code 2."""
    advice = "nothing was done"
    try:
        config = _parse(list(sys.argv[1:] if arguments is None else arguments))
        name, run = next((name, run) for name, (kind, run) in COMMANDS.items() if isinstance(config, kind))
        advice = AFTER_STOP.get(name, "nothing was written")
        with _warnings_as_sentences():
            run(config)
    except (ValueError, OSError, ImportError, TrainingDivergedError) as error:
        print(f"sb3-permakey: {error}", file=sys.stderr)
        sys.exit(2)
    except (RuntimeError, MemoryError) as error:
        if not _is_for_want_of_memory(error):
            raise
        print(f"sb3-permakey: these settings take more memory than there is ({error})", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"sb3-permakey: stopped; {advice}", file=sys.stderr)
        sys.exit(130)


def _is_for_want_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether there was too little memory; torch has a class for that of a GPU alone."""
    words = ("allocate memory", "out of memory")
    return isinstance(error, MemoryError) or any(part in str(error) for part in words)


def _parse(given: list[str]) -> Any:
    """The settings of the command that is given.

    What they refuse themselves tyro would print in a box, under its own inner names; it is raised instead.
    """
    kinds: dict[str, Any] = {name: kind for name, (kind, _) in COMMANDS.items()}
    kinds["pretrain"] = _pretraining_kind(given)

    def parse() -> Any:
        return tyro.extras.subcommand_cli_from_dict(
            kinds,
            config=(tyro.conf.OmitArgPrefixes,),
            prog="sb3-permakey",
            description="Object keypoints for reinforcement learning: collect frames, pretrain keypoints on them, "
            "show and score these, train an agent that sees them, evaluate it. Each command names the next one.",
            args=given,
        )

    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            return parse()
    except SystemExit as stop:
        refusal = _own_refusal(stop)
    if refusal:
        raise refusal
    return parse()


def _own_refusal(stop: SystemExit) -> ValueError | None:
    """The error of the package's own settings that made tyro stop, if there was one."""
    error = stop.__context__
    while error is not None:
        if isinstance(error, ValueError):
            raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
            if Path(raised_in).is_relative_to(Path(__file__).parent):
                return error
        error = error.__context__
    return None


@contextmanager
def _warnings_as_sentences() -> Iterator[None]:
    """Users' warnings without the place in the code that they come from."""
    usual = warnings.formatwarning

    def sentence(message: Any, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
        if category is UserWarning:
            return f"sb3-permakey: warning: {message}\n"
        return usual(message, category, filename, lineno, line)

    warnings.formatwarning = sentence
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _pretraining_kind(arguments: Sequence[str]) -> type[PretrainConfig]:
    """The settings that the preset among the arguments names: it decides what all other flags are by default."""
    parts = [part for argument in arguments for part in argument.split("=", 1)]
    chosen = [value for flag, value in pairwise(parts) if flag == "--preset" and value in PRESETS]
    return PRESETS[chosen[-1]] if chosen else PretrainConfig


def _say(text: str) -> None:
    print(text, flush=True)


def _next(*parts: Any) -> None:
    """Print the command that comes next, as a shell takes it."""
    _suggest(shlex.join(["sb3-permakey", *map(str, parts)]))


def _suggest(step: str) -> None:
    if os.environ.get(NEXT_VARIABLE) != "0":
        _say(f"next: {step}")
