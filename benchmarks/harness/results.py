"""Result files with a digest, by which a damaged one is found: one JSON a run."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from pathlib import Path
from typing import Any

from sb3_permakey.files import read_json, write_json

DIGEST = "sha256"
Result = dict[str, Any]


class CorruptResultWarning(UserWarning):
    """A result file that is damaged and set aside."""


def digest(result: Result) -> str:
    """SHA-256 of a result's content, whatever the order and layout of its file."""
    content = {name: value for name, value in result.items() if name != DIGEST}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_result(path: Path, result: Result) -> Path:
    """Write a result atomically, its digest with it."""
    # Through JSON first, so that the digest is that of what will be read.
    plain = json.loads(json.dumps(result))
    return write_json(path, {**plain, DIGEST: digest(plain)})


def read_result(path: Path) -> Result | None:
    """A result; None when there is none, or when the file is damaged: then it is renamed, with a warning."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        result = json.loads(content)
        intact = result[DIGEST] == digest(result)
    except (ValueError, KeyError, TypeError):
        intact = False
    if intact:
        return result
    aside = path.with_name(f"{path.name}.corrupt")
    os.replace(path, aside)
    warnings.warn(f"{path} is damaged; it is set aside as {aside.name} and counts no more", CorruptResultWarning, 2)
    return None


def read_results(folder: Path) -> list[Result]:
    """All whole results of a folder, in the order of their names."""
    results = [read_result(path) for path in sorted(folder.glob("*.json"))]
    return [result for result in results if result is not None]


def settings_of(config: Any, *names: str) -> dict[str, Any]:
    """Some of a benchmark's settings, as JSON gives them back."""
    return json.loads(json.dumps({name: getattr(config, name) for name in names}))


def made_before(path: Path, settings: dict[str, Any]) -> Result | None:
    """What a result file holds that names its settings as "config"; None where there is none.

    :raises ValueError: when it was made with other settings
    """
    if not path.exists():
        return None
    found = read_json(path)
    if found["config"] != settings:
        raise ValueError(f"{path} was made with other settings; move it away or use another folder")
    return found
