"""What to type where a package is missing that an extra brings."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

PROJECT = "sb3-permakey"
CLONE = Path(__file__).resolve().parents[1]
"""The clone that this code lies in, where it lies in one."""


def missing_package(need: str, extra: str) -> ImportError:
    """The error where a package is not installed.

    :param need: who needs which package, "Atari games need ale-py"
    :param extra: the extra that brings it
    """
    return ImportError(f"{need}: {install_command(extra)}")


def install_command(extra: str) -> str:
    """The command that adds an extra to this installation, from wherever that came: a clone, a URL, or an index."""
    if (CLONE / "pyproject.toml").exists():
        return f'pip install -e "{CLONE}[{extra}]"'
    try:
        origin = json.loads(importlib.metadata.distribution(PROJECT).read_text("direct_url.json") or "null")
    except importlib.metadata.PackageNotFoundError:
        origin = None
    # PEP 610: pip notes what it installed that came from no index.
    if not origin:
        return f'pip install "{PROJECT}[{extra}]"'
    version_control = origin.get("vcs_info")
    url = (
        f"{version_control['vcs']}+{origin['url']}@{version_control['commit_id']}" if version_control else origin["url"]
    )
    return f'pip install "{PROJECT}[{extra}] @ {url}"'
