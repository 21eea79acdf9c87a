"""What made a result: command, commit, versions, machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "sb3-permakey",
    "torch",
    "stable-baselines3",
    "sb3-contrib",
    "gymnasium",
    "ale-py",
    "numpy",
    "scipy",
    "ocatari",
)
CODE = (":(top)*.py", ":(top)*.toml", ":(top)*.safetensors", ":(top,exclude)tests/*")
"""Files that make results, as git's patterns."""


def source_commit(folder: Path) -> str | None:
    """Commit of a source tree, marked "-dirty" when code or checkpoints differ from it; None without a repository.

    Results, pictures and tests may differ: a benchmark writes its report over the committed one.
    """
    try:
        commit = _git(folder, "rev-parse", "--short=12", "HEAD")
        changed = _git(folder, "diff", "--name-only", "HEAD", "--", *CODE)
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if changed else commit


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True
    ).stdout.strip()


COMMIT = source_commit(Path(__file__).parent)
"""Of the code that runs: read when it is loaded, since the source tree may move on while it runs for hours."""


def provenance() -> dict[str, Any]:
    """Command line, commit of the source tree when the process began, package versions and kind of machine."""
    return {
        "command": command_line(),
        "commit": COMMIT,
        "versions": {package: _version(package) for package in PACKAGES},
        "machine": {
            "cpu": _cpu_name(),
            "cores": os.cpu_count(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "system": platform.system(),
            "python": platform.python_version(),
        },
    }


def command_line() -> str:
    """The process's command as anybody can type it: of folders elsewhere on this machine the last name alone."""
    return shlex.join([*_program(Path(sys.argv[0])), *map(_without_folders, sys.argv[1:])])


def _without_folders(argument: str) -> str:
    """An argument, or the value behind its equals sign, without the folders above an absolute path."""
    flag, equals, value = argument.rpartition("=")
    path = Path(value)
    if not path.is_absolute():
        return argument
    here = Path.cwd()
    return f"{flag}{equals}{path.relative_to(here) if path.is_relative_to(here) else path.name}"


def _program(path: Path) -> list[str]:
    """How a program is called: a module of the source tree by its name, else the name of its file."""
    try:
        parts = path.resolve().relative_to(Path(__file__).resolve().parents[1]).with_suffix("").parts
    except ValueError:
        parts = ()
    if path.suffix != ".py" or not all(part.isidentifier() for part in parts) or not parts:
        return [path.name]
    return ["python", "-m", ".".join(parts[:-1] if parts[-1] == "__main__" else parts)]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
