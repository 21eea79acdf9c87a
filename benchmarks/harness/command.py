"""A benchmark's command line, and where it writes: beside the committed results, or with --update to those."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import tyro

Main = Callable[[Any], None]

UPDATE = "--update"
COMMITTED = (Path("benchmarks/results"), Path("docs"))
"""Folders whose files are committed."""
BESIDE = Path("runs/results")
"""Where those go that are measured without --update."""
ABOUT_UPDATE = (
    f"Results, reports and pictures go to {BESIDE}, beside the committed ones, and what is done there is not done "
    f"again; with {UPDATE} the committed ones are taken for what is done, and written."
)


@contextmanager
def sentences(name: str) -> Iterator[None]:
    """What is wrong with the input, or lacks, ends the command with a sentence and exit code 2."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)


def run_command(
    name: str, config: Any, main: Main, arguments: Sequence[str] | None = None, *, only_update: bool = False
) -> None:
    """Run a benchmark with the settings of the command line.

    :param name: of the benchmark, as its folder or module has it
    :param config: the dataclass of its settings
    :param main: does it
    :param arguments: None: the process's own
    :param only_update: whether committed files are all that it writes, so that it wants --update
    """
    with sentences(name):
        given, update = _given(arguments)
        about = f"{inspect.cleandoc(config.__doc__)}\n\n{f'It needs {UPDATE}.' if only_update else ABOUT_UPDATE}"
        settings = tyro.cli(config, prog=f"python -m benchmarks.{name}", description=about, args=given)
        if only_update and not update:
            raise ValueError(f"all that it writes is committed: {UPDATE} says that you want that")
        settings = settings if update else beside(settings, given)
        results = getattr(settings, "results", None)
        if name.endswith("report") and results and not results.exists():
            raise ValueError(f"nothing was measured yet in {results}; the committed results are those of {UPDATE}")
        main(settings)


def run_one_of(
    name: str, commands: Mapping[str, tuple[type, Main]], description: str, arguments: Sequence[str] | None = None
) -> None:
    """Run one of a folder's benchmarks, which the first argument names.

    :param name: of the folder
    :param commands: the dataclass of each one's settings, and what does it
    :param description: for --help
    :param arguments: None: the process's own
    """
    with sentences(name):
        given, update = _given(arguments)
        kinds: dict[str, Any] = {command: kind for command, (kind, _) in commands.items()}
        settings: Any = tyro.extras.subcommand_cli_from_dict(
            kinds, prog=f"python -m benchmarks.{name}", description=f"{description}\n\n{ABOUT_UPDATE}", args=given
        )
        run = next(main for kind, main in commands.values() if isinstance(settings, kind))
        run(settings if update else beside(settings, given))


def beside(settings: Any, arguments: Sequence[str]) -> Any:
    """Settings whose places among the committed files, where nobody named them, are below `BESIDE` instead.

    :param settings: a benchmark's
    :param arguments: of the command line; a place that stands there stays
    """
    named = {argument.rpartition("=")[2] for argument in arguments}
    moved = {}
    for one in fields(settings):
        value = getattr(settings, one.name)
        if one.default is MISSING or value != one.default or not isinstance(value, Path) or str(value) in named:
            continue
        for folder in COMMITTED:
            if value.is_relative_to(folder):
                moved[one.name] = BESIDE / value.relative_to(folder)
    return replace(settings, **moved)


def _given(arguments: Sequence[str] | None) -> tuple[list[str], bool]:
    """The arguments but --update, and whether that was among them."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return [argument for argument in given if argument != UPDATE], UPDATE in given
