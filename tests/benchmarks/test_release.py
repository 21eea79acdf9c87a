"""What the package and its extras weigh, the table of it, and commands of checkpoints."""

import json
from pathlib import Path

import pytest

from benchmarks.harness.markdown_blocks import renewed
from benchmarks.release import extras as benchmark
from benchmarks.release.report import BRINGS, extras_table
from benchmarks.release.run import command_of

ROOT = Path(__file__).parents[2]


def test_bytes_of_a_folder(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "inside" / "b").write_bytes(b"de")
    assert benchmark.bytes_in(tmp_path) == 5


def test_every_extra_is_weighed_and_told_of():
    assert "atari" in benchmark.extras()
    assert set(benchmark.extras()) <= set(BRINGS)


class Pretended:
    """An environment in which torch weighs 5 bytes and the package 2."""

    def __init__(self, folder):
        self.packages = folder
        folder.mkdir()

    def install(self, wanted):
        name, size = {"torch": ("torch", 5), str(benchmark.ROOT): ("sb3-permakey", 2)}[wanted]
        (self.packages / name).write_bytes(b"x" * size)

    def installed(self):
        there = {path.name: "1" for path in self.packages.iterdir()}
        return there | ({"tyro": "2"} if "sb3-permakey" in there else {})

    def would_add(self, wanted):
        return {"pyarrow": "3"} if "[parquet]" in wanted else {}

    def install_apart(self, packages, folder):
        for name in packages:
            (folder / name).write_bytes(b"x" * 7)


def test_what_each_adds(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "Environment", Pretended)
    monkeypatch.setattr(benchmark, "extras", lambda: ["atari", "parquet"])
    assert dict(benchmark.measure(benchmark.ExtrasBenchmark(), tmp_path)) == {
        "torch": {"bytes": 5, "packages": {"torch": "1"}},
        "core": {"bytes": 2, "packages": {"tyro": "2"}},
        "atari": {"bytes": 0, "packages": {}},
        "parquet": {"bytes": 7, "packages": {"pyarrow": "3"}},
    }


def test_pip_that_fails_is_told(tmp_path, monkeypatch):
    environment = benchmark.Environment.__new__(benchmark.Environment)
    environment.python = "false"
    monkeypatch.setattr(
        benchmark.subprocess,
        "run",
        lambda *_, **__: benchmark.subprocess.CompletedProcess([], 1, "", "many lines\nERROR: no such package\n"),
    )
    with pytest.raises(ValueError, match="install -q .* failed: ERROR: no such package"):
        environment.install("nothing")


def test_the_table_of_the_install_page_is_the_committed_one():
    result = json.loads((ROOT / "benchmarks/results/extras.json").read_text())
    page = ROOT / "docs/install.md"
    assert renewed(page, extras="\n".join(extras_table(result))) == page.read_text()
    assert set(result["extras"]) <= set(benchmark.extras())


def test_commands_name_the_usual_folders():
    command = "sb3-permakey distil pong-teacher --frames {}/pong --out {}/pong-clean-0.safetensors --seed 0"
    usual = command.format("runs/keypoints/frames", "runs/distilled")
    for ran in (command.format("../big/frames", "/elsewhere/distilled"), usual):
        assert command_of({"teacher": "pong-teacher", "training": {"command": ran}}) == usual
    built = {"game": "Pong", "teacher": "../keypoints/pong.safetensors", "training": {"command": usual}}
    assert command_of(built) == "python -m benchmarks.release.build --games Pong"
