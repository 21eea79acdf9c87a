"""The commands of the benchmarks, by their names of today and of before."""

import importlib
import subprocess
import sys
from dataclasses import MISSING, dataclass, fields, is_dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

import benchmarks
from benchmarks.harness.command import COMMITTED, run_command, run_one_of

FOLDER = Path(benchmarks.__file__).parent
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/__main__.py"))


def test_every_benchmark_is_a_folder_with_a_command():
    assert NAMES == ["atari100k", "distilled", "figures", "keypoints", "memory", "release", "speed", "variants"]
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


@dataclass(frozen=True)
class Places:
    """Places."""

    results: Path = Path("benchmarks/results/tiny")
    """JSON."""
    pictures: Path = Path("docs")
    """Pictures."""
    folder: Path = Path("runs/tiny")
    """Checkpoints."""
    readme: Path | None = None
    """A page."""


def places(*arguments):
    done = []
    run_command("tiny", Places, done.append, arguments)
    run_one_of("tiny", {"first": (Places, done.append), "second": (Settings, refuse)}, "", ["first", *arguments])
    assert done[0] == done[1]
    return done[0]


def test_what_is_committed_is_written_by_update_alone():
    assert places() == Places(Path("runs/results/tiny"), Path("runs/results"))
    assert places("--update") == Places()


def test_a_place_that_is_named_is_taken():
    named = places("--results", "benchmarks/results/tiny", "--readme=README.md")
    assert named == Places(pictures=Path("runs/results"), readme=Path("README.md"))
    assert places("--results", "elsewhere", "--update").results == Path("elsewhere")


def test_a_report_of_nothing_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        run_command("tiny.report", Places, refuse, [])
    assert capsys.readouterr().err == (
        "tiny.report: nothing was measured yet in runs/results/tiny; the committed results are those of --update\n"
    )


def test_a_command_that_writes_committed_files_alone_wants_update(capsys):
    done = []
    with pytest.raises(SystemExit):
        run_command("tiny", Places, done.append, [], only_update=True)
    assert "--update says that you want that" in capsys.readouterr().err
    run_command("tiny", Places, done.append, ["--update"], only_update=True)
    assert done == [Places()]


MODULES = [
    ".".join(["benchmarks", path.parent.name, path.stem]) for path in FOLDER.glob("*/*.py") if path.stem != "__main__"
]


def places_within(kind):
    """Places among the committed files that settings hold where `beside` does not see them."""
    for one in fields(kind):
        made = None if one.default_factory is MISSING else one.default_factory()
        if isinstance(made, Path):
            yield one.name, made
        elif is_dataclass(made):
            yield from ((inner.name, getattr(made, inner.name)) for inner in fields(made))


def test_no_settings_hide_a_committed_place():
    modules = [importlib.import_module(name) for name in MODULES]
    kinds = {one for module in modules for one in vars(module).values() if isinstance(one, type) and is_dataclass(one)}
    hidden = [
        (kind.__name__, name)
        for kind in kinds
        for name, value in places_within(kind)
        if isinstance(value, Path) and any(value.is_relative_to(folder) for folder in COMMITTED)
    ]
    assert hidden == []
