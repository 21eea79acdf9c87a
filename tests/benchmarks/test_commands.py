"""The commands of the benchmarks, by their names of today and of before."""

import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

import benchmarks
from benchmarks.harness.command import run_command, run_one_of

FOLDER = Path(benchmarks.__file__).parent
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/__main__.py"))


def test_every_benchmark_is_a_folder_with_a_command():
    assert NAMES == ["atari100k", "figures", "keypoints", "memory", "release", "speed", "variants"]
    assert [path.name for path in FOLDER.glob("*.py")] == ["__init__.py"]
    for name in NAMES:
        assert (FOLDER / name / "run.py").exists()


@pytest.mark.parametrize("old", benchmarks.MOVED)
def test_old_names_lead_to_new_files(old):
    spec = find_spec(f"benchmarks.{old}")
    assert Path(spec.origin) == FOLDER / benchmarks.MOVED[old]
    assert 'if __name__ == "__main__":' in Path(spec.origin).read_text()


def test_an_old_name_runs_the_new_command():
    command = [sys.executable, "-m", "benchmarks.variants_report", "--help"]
    done = subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True, check=True)
    assert "python -m benchmarks.variants.report" in done.stdout


def test_names_that_never_were_are_not_found():
    assert find_spec("benchmarks.variants_reports") is None


@dataclass(frozen=True)
class Settings:
    """Settings."""

    number: int = 1
    """A number."""


def refuse(settings):
    raise ValueError(f"{settings.number} is not wanted")


def test_what_is_wrong_is_told_in_a_sentence(capsys):
    with pytest.raises(SystemExit) as stopped:
        run_command("tiny", Settings, refuse, ["--number", "3"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "tiny: 3 is not wanted\n"


def test_one_of_several_commands(capsys):
    @dataclass(frozen=True)
    class Other:
        """Others."""

    done = []
    commands = {"first": (Settings, done.append), "second": (Other, refuse)}
    run_one_of("tiny", commands, "Two.", ["first", "--number", "4"])
    assert done == [Settings(4)]
