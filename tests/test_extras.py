import importlib.metadata
import json
import re
from pathlib import Path

import pytest

from sb3_permakey import extras
from sb3_permakey.extras import install_command, missing_package

tomllib = pytest.importorskip("tomllib", reason="Python 3.11 has it")

ROOT = Path(__file__).parents[1]


class Installed:
    """An installation of which pip noted this origin."""

    def __init__(self, origin):
        self.origin = origin

    def read_text(self, name):
        assert name == "direct_url.json"
        return None if self.origin is None else json.dumps(self.origin)


@pytest.fixture
def installed(monkeypatch, tmp_path):
    def install(origin):
        monkeypatch.setattr(extras, "CLONE", tmp_path / "site-packages")
        monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Installed(origin))

    return install


def test_a_clone_is_named():
    assert install_command("atari") == f'pip install -e "{ROOT}[atari]"'
    assert str(missing_package("Atari games need ale-py", "atari")) == (
        f'Atari games need ale-py: pip install -e "{ROOT}[atari]"'
    )


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (None, "sb3-permakey[zoo]"),
        ({"url": "file:///home/me/my%20clone", "dir_info": {}}, "sb3-permakey[zoo] @ file:///home/me/my%20clone"),
        (
            {"url": "https://example.org/x.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "sb3-permakey[zoo] @ git+https://example.org/x.git@abc",
        ),
    ],
)
def test_where_an_installation_came_from_is_named(installed, origin, expected):
    installed(origin)
    assert install_command("zoo") == f'pip install "{expected}"'


def test_without_an_installation_the_index_is_named(monkeypatch, tmp_path):
    def none(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(extras, "CLONE", tmp_path)
    monkeypatch.setattr(importlib.metadata, "distribution", none)
    assert install_command("zoo") == 'pip install "sb3-permakey[zoo]"'


def test_commands_come_from_one_place_and_name_extras_that_there_are():
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = set()
    for path in [*(ROOT / "sb3_permakey").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        text = path.read_text()
        if path.name != "extras.py":
            assert "pip install" not in text, path
        named |= set(re.findall(r'missing_package\(.*, "(\w+)"\)', text))
    assert {"atari", "benchmarks", "players", "scores"} <= named <= set(known)
