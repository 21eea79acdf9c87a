import subprocess
from pathlib import Path

import pytest

from sb3_permakey.provenance import COMMIT, command_line, provenance, source_commit


@pytest.fixture
def repository(tmp_path):
    def git(*arguments):
        who = ["-c", "user.name=tester", "-c", "user.email=tester@example.org"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "code.py").write_text("1\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_code.py").write_text("1\n")
    (tmp_path / "report.md").write_text("1\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    return tmp_path


def test_only_code_makes_a_commit_dirty(repository):
    commit = source_commit(repository / "package")
    assert len(commit) == 12
    (repository / "report.md").write_text("2\n")
    (repository / "tests" / "test_code.py").write_text("2\n")
    (repository / "new.py").write_text("untracked\n")
    assert source_commit(repository / "package") == commit
    (repository / "package" / "code.py").write_text("2\n")
    assert source_commit(repository / "package") == f"{commit}-dirty"


def test_there_is_no_commit_without_a_repository(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert source_commit(tmp_path) is None


def test_the_commit_is_that_of_the_code_that_was_loaded(monkeypatch):
    monkeypatch.setattr("sb3_permakey.provenance.source_commit", lambda folder: "a later one")
    assert provenance()["commit"] == COMMIT != "a later one"


def test_provenance_names_command_versions_and_machine():
    made = provenance()
    assert made["versions"]["torch"]
    assert made["machine"]["cores"] >= 1
    assert {"command", "commit"} <= made.keys()


@pytest.mark.parametrize(
    ("program", "command"),
    [
        ("benchmarks/memory/__main__.py", "python -m benchmarks.memory --seeds 0"),
        ("benchmarks/memory/report.py", "python -m benchmarks.memory.report --seeds 0"),
        (".venv/bin/sb3-permakey", "sb3-permakey --seeds 0"),
        (".venv/lib/a_script.py", "a_script.py --seeds 0"),
        ("/elsewhere/train.py", "train.py --seeds 0"),
    ],
)
def test_the_command_can_be_typed_again(program, command, monkeypatch):
    monkeypatch.setattr("sys.argv", [str(Path(__file__).parents[1] / program), "--seeds", "0"])
    assert provenance()["command"] == command


def test_the_command_names_no_folder_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    arguments = ["--out", str(tmp_path / "runs" / "one"), "--results", "/elsewhere/results", "--folder=/else/where"]
    monkeypatch.setattr("sys.argv", ["train.py", *arguments, "--settings", "rate=1e-4", "size=[1,2]"])
    assert command_line() == (
        "train.py --out runs/one --results results --folder=where --settings rate=1e-4 'size=[1,2]'"
    )
