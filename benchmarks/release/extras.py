"""What the package and each of its extras install, and how much that weighs.

    python -m benchmarks.release.extras --update

PyTorch goes into an empty environment first, its CPU build or another, then the package. What an extra adds to these is
asked of pip and installed into an empty folder, whose files are counted. Versions are those of constraints.txt.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from benchmarks.harness.command import run_command
from sb3_permakey.extras import PROJECT
from sb3_permakey.files import write_json
from sb3_permakey.provenance import provenance

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class ExtrasBenchmark:
    """Weigh the package and its extras."""

    out: Path = Path("benchmarks/results/extras.json")
    """JSON file to write."""
    torch: str = "torch"
    """What to install first, as pip takes it."""


def extras() -> list[str]:
    """The names of the extras, as pyproject.toml has them."""
    _, _, rest = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]\n")
    return re.findall(r"(?m)^([a-z0-9-]+) = \[", rest.partition("\n[")[0])


def bytes_in(folder: Path) -> int:
    """Size of all files below a folder; links count as their names."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


class Environment:
    """A new virtual environment in a folder.

    :param folder: where to make it
    """

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=True)
        self.python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        answer = self._run("-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])")
        self.packages = Path(answer.strip())

    def install(self, wanted: str) -> None:
        """Install something, and what it needs."""
        self._pip("install", wanted)

    def installed(self) -> dict[str, str]:
        """Names and versions of all that is there."""
        return {one.metadata["Name"]: one.version for one in distributions(path=[str(self.packages)])}

    def would_add(self, wanted: str) -> dict[str, str]:
        """Names and versions of what an installation would add."""
        report = json.loads(self._pip("install", "--dry-run", "--report", "-", wanted))
        added = [one["metadata"] for one in report["install"]]
        return {one["name"]: one["version"] for one in added if one["name"] != PROJECT}

    def install_apart(self, packages: dict[str, str], folder: Path) -> None:
        """Install packages, without what they ask for, into a folder of their own."""
        if packages:
            pinned = [f"{name}=={version}" for name, version in packages.items()]
            self._pip("install", "--no-deps", "--target", str(folder), *pinned)

    def _pip(self, command: str, *arguments: str) -> str:
        return self._run("-m", "pip", command, "-q", "-c", str(ROOT / "constraints.txt"), *arguments)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run([self.python, *arguments], capture_output=True, text=True)
        if done.returncode:
            raise ValueError(f"{' '.join(arguments)} failed: {done.stderr.strip().splitlines()[-1]}")
        return done.stdout


def measure(config: ExtrasBenchmark, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of PyTorch, of the package and of each extra, what each adds, in bytes and packages.

    :param config: what to install first
    :param folder: an empty folder
    """
    environment = Environment(folder / "environment")
    before, there = bytes_in(environment.packages), set(environment.installed())
    for name, wanted in (("torch", config.torch), ("core", str(ROOT))):
        environment.install(wanted)
        packages = environment.installed()
        after = bytes_in(environment.packages)
        added = {one: version for one, version in packages.items() if one not in there and one != PROJECT}
        yield name, {"bytes": after - before, "packages": added}
        before, there = after, set(packages)
    for name in extras():
        packages = environment.would_add(f"{PROJECT}[{name}] @ {ROOT.as_uri()}")
        place = folder / name
        place.mkdir()
        environment.install_apart(packages, place)
        yield name, {"bytes": bytes_in(place), "packages": packages}


def main(config: ExtrasBenchmark) -> None:
    """Measure and write."""
    weights = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, weight in measure(config, Path(folder)):
            weights[name] = weight
            print(f"{name}: {weight['bytes'] / 1e6:.0f} MB, {len(weight['packages'])} packages", flush=True)
    parts = {"torch": weights.pop("torch"), "core": weights.pop("core"), "extras": weights}
    write_json(config.out, {**parts, **provenance()})
    print(config.out)


def command() -> None:
    """The command line."""
    run_command("release.extras", ExtrasBenchmark, main)


if __name__ == "__main__":
    command()
