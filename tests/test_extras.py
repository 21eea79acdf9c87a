import contextlib
import importlib.metadata
import json
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from sb3_permakey import extras
from sb3_permakey.extras import install_command, missing_package

tomllib = pytest.importorskip("tomllib", reason="Python 3.11 has it")

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


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


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def brought_by(extra: str, own: dict) -> set[str]:
    """Every package that an installation with one extra has, as far as they are installed here."""
    waiting = [Requirement(f"sb3-permakey[{extra}]")]
    seen = set()
    while waiting:
        wanted = waiting.pop()
        for part in {"", *wanted.extras}:
            if (plain(wanted.name), part) in seen:
                continue
            seen.add((plain(wanted.name), part))
            needs: list[str] = []
            if plain(wanted.name) == "sb3-permakey":
                needs = own["optional-dependencies"][part] if part else own["dependencies"]
            else:
                with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                    needs = importlib.metadata.requires(wanted.name) or []
            for need in map(Requirement, needs):
                if need.marker is None or need.marker.evaluate({"extra": part}):
                    waiting.append(need)
    return {name for name, _ in seen}


@pytest.mark.parametrize(
    ("extra", "modules"),
    [
        ("atari", ("ale_py", "cv2", "imageio", "imageio_ffmpeg")),
        ("scores", ("ale_py", "cv2", "ocatari")),
        ("players", ("ale_py", "cv2", "huggingface_sb3", "minari", "h5py", "huggingface_hub")),
        ("benchmarks", ("ale_py", "cv2", "ray", "rliable", "pandas", "matplotlib")),
        ("curves", ("matplotlib",)),
        ("parquet", ("pyarrow",)),
        ("view", ("ale_py", "cv2", "starlette", "uvicorn")),
        ("window", ("pygame",)),
        ("zoo", ("rl_zoo3", "requests", "optuna", "pandas", "pygame", "moviepy")),
    ],
)
def test_each_extra_brings_what_its_code_imports(extra, modules):
    brought = brought_by(extra, PROJECT)
    assert {"torch", "stable-baselines3"} <= brought
    for module in modules:
        packages = importlib.metadata.packages_distributions().get(module)
        if packages is None:
            pytest.skip(f"{module} is not installed here")
        assert brought & set(map(plain, packages)), module


def test_what_rl_zoo_imports_and_does_not_require_is_in_the_extra():
    """RL Zoo imports requests, which it once had from huggingface_hub, and pandas, which is an extra of its own."""
    named = {plain(Requirement(need).name) for need in PROJECT["optional-dependencies"]["zoo"]}
    assert {"requests", "pandas"} <= named


def test_commands_come_from_one_place_and_name_extras_that_there_are():
    named = set()
    for path in [*(ROOT / "sb3_permakey").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        text = path.read_text()
        if path.name != "extras.py":
            assert not re.search(r"pip install[^\n]*sb3-permakey", text), path
        named |= set(re.findall(r'missing_package\(.*, "(\w+)"\)', text))
    assert (
        {"atari", "benchmarks", "curves", "parquet", "players", "scores", "view", "window"}
        <= named
        <= set(PROJECT["optional-dependencies"])
    )
