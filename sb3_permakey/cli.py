"""The command line: sb3-permakey and the name of a command."""

from __future__ import annotations

import io
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import tyro

from sb3_permakey.commands import checkpoints, collect, compare, detect, distil, evaluate, pretrain, score, show, train
from sb3_permakey.play.collect import CollectConfig
from sb3_permakey.play.evaluation import EvaluateConfig
from sb3_permakey.pretraining.config import PretrainConfig
from sb3_permakey.pretraining.distillation import DistilConfig
from sb3_permakey.pretraining.trainer import TrainingDivergedError
from sb3_permakey.scores import ScoreConfig
from sb3_permakey.training.run import TrainConfig

COMMANDS: dict[str, tuple[type, Callable[[Any], None]]] = {
    "collect": (CollectConfig, collect.run),
    "pretrain": (PretrainConfig, pretrain.run),
    "distil": (DistilConfig, distil.run),
    "show": (show.ShowConfig, show.run),
    "score": (ScoreConfig, score.run),
    "checkpoints": (checkpoints.CheckpointsConfig, checkpoints.run),
    "detect": (detect.DetectConfig, detect.run),
    "train": (TrainConfig, train.run),
    "evaluate": (EvaluateConfig, evaluate.run),
    "compare": (compare.CompareConfig, compare.run),
}
"""The settings of each command, whose fields are its flags, and what runs it."""
AFTER_STOP = {
    "collect": "the same command goes on with its first unfinished episode",
    "pretrain": "the same command goes on from where it last saved",
    "distil": "the same command goes on from where it last saved",
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
    kinds["pretrain"] = pretrain.kind_of(given)

    def parse() -> Any:
        return tyro.extras.subcommand_cli_from_dict(
            kinds,
            config=(tyro.conf.OmitArgPrefixes,),
            prog="sb3-permakey",
            description="Object keypoints for reinforcement learning: collect frames, pretrain keypoints on them, "
            "show and score these, write them to files, train an agent that sees them, evaluate it, compare runs. Each "
            "command names the next one; --version says which release this is.",
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
