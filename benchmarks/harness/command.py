"""A benchmark's command line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import tyro

Main = Callable[[Any], None]


@contextmanager
def sentences(name: str) -> Iterator[None]:
    """What is wrong with the input, or lacks, ends the command with a sentence and exit code 2."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)


def run_command(name: str, config: Any, main: Main, arguments: Sequence[str] | None = None) -> None:
    """Run a benchmark with the settings of the command line.

    :param name: of the benchmark, as its folder or module has it
    :param config: the dataclass of its settings
    :param main: does it
    :param arguments: None: the process's own
    """
    with sentences(name):
        main(tyro.cli(config, prog=f"python -m benchmarks.{name}", args=arguments))


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
        kinds: dict[str, Any] = {command: kind for command, (kind, _) in commands.items()}
        config: Any = tyro.extras.subcommand_cli_from_dict(
            kinds, prog=f"python -m benchmarks.{name}", description=description, args=arguments
        )
        next(main for kind, main in commands.values() if isinstance(config, kind))(config)
