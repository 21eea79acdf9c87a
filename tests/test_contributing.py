"""CONTRIBUTING.md and the hooks before a commit say what is so."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def test_the_hooks_are_what_make_lint_does():
    makefile = (ROOT / "Makefile").read_text()
    lint = re.search(r"(?m)^lint:.*\n((?:\t.*\n)+)", makefile).group(1)
    commands = {tuple(line.split()[:2]) for line in lint.strip().replace("$(BIN)/", "").splitlines()}
    hooks = re.findall(r"(?m)^        entry: \.venv/bin/(.*)$", (ROOT / ".pre-commit-config.yaml").read_text())
    assert {tuple(hook.split()[:2]) for hook in hooks} == commands


def test_each_thing_that_one_may_add_is_at_most_two_files():
    adding = TEXT.partition("## Adding something")[2].partition("\n## ")[0]
    things = re.split(r"(?m)^\*\*", adding)[1:]
    assert len(things) == 6
    for thing in things:
        assert re.findall(r"(?m)^(\d)\. ", thing) == ["1", "2"]


def test_make_targets_that_are_named_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = {target for line in re.findall(r"(?m)^make ([a-z0-9 -]*?)(?:  |$)", TEXT) for target in line.split()}
    assert {"test", "lint", "test-numpy2", "test-matrix"} <= targets
    for target in targets:
        assert f"\n{target}:" in makefile


def test_the_matrix_says_that_it_needs_uv(tmp_path):
    for name in ("dirname", "grep", "bash"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    done = subprocess.run([ROOT / ".ci" / "matrix"], env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "make test-matrix needs uv, which makes its environments: pip install uv\n"
