"""What result files hold, and what is wrong with one; a test asks it of every file that is committed.

A benchmark's `report.py` has `SCHEMAS`, one for each kind of file that it reads. Every result says what made it: the
command, a clean commit, versions and machine (`sb3_permakey.provenance`).
"""

from __future__ import annotations

import importlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness.results import DIGEST, Result, digest

FOLDER = Path(__file__).parents[1]
Kinds = Mapping[str, type | tuple[type, ...]]

NUMBER = (int, float)
TEXT_OR_NONE = (str, type(None))
MADE_BY: Kinds = {"command": str, "commit": str, "versions": dict, "machine": dict}
MACHINE: Kinds = {"cpu": str, "cores": int, "gpu": TEXT_OR_NONE, "system": str, "python": str}
COMMIT = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class ResultSchema:
    """One kind of result files.

    :param files: pattern of their paths below the folder of results
    :param parts: names of a result's own parts, and what they are
    :param known_dirty: commits ending in "-dirty" whose results are kept all the same; the benchmark's notes say why
    """

    files: str
    parts: Kinds
    known_dirty: frozenset[str] = field(default_factory=frozenset)

    def matches(self, path: Path) -> bool:
        """Whether a file, as seen from the folder of results, is of this kind."""
        return len(path.parts) == len(Path(self.files).parts) and path.match(self.files)


def all_schemas() -> list[ResultSchema]:
    """The schemas of all benchmarks."""
    modules = [f"benchmarks.{path.parent.name}.report" for path in sorted(FOLDER.glob("*/report.py"))]
    return [schema for module in modules for schema in importlib.import_module(module).SCHEMAS]


def problems(result: Any, schema: ResultSchema) -> list[str]:
    """What is wrong with a result, a sentence each; nothing where all is right."""
    if not isinstance(result, dict):
        return ["it is no JSON object"]
    found = [
        *_wrong_kinds(result, {**schema.parts, **MADE_BY}, "it"),
        *(_wrong_kinds(result["machine"], MACHINE, "its machine") if isinstance(result.get("machine"), dict) else []),
    ]
    if DIGEST in result and result[DIGEST] != digest(result):
        found.append(f"its {DIGEST} is not that of its content")
    for name, value in _leaves(result):
        if name == "commit" and not COMMIT.fullmatch(str(value)) and value not in schema.known_dirty:
            found.append(f"its commit {value!r} is not that of committed code")
        if isinstance(value, float) and not math.isfinite(value):
            found.append(f"its {name} is {value}")
    return list(dict.fromkeys(found))


def file_problems(path: Path, results: Path, schemas: list[ResultSchema]) -> list[str]:
    """What is wrong with a file.

    :param path: the file
    :param results: the folder of results
    :param schemas: of all kinds
    """
    own = [schema for schema in schemas if schema.matches(path.relative_to(results))]
    if len(own) != 1:
        return [f"{len(own)} schemas have files of its name, not one"]
    try:
        result: Result = json.loads(path.read_text())
    except ValueError as error:
        return [f"it is no JSON: {error}"]
    return problems(result, own[0])


def is_dirty(result: Result) -> bool:
    """Whether a result's code was not, or perhaps not, that of its commit."""
    return str(result["commit"]).endswith("-dirty")


def _wrong_kinds(part: Mapping[str, Any], kinds: Kinds, owner: str) -> list[str]:
    found = []
    for name, kind in kinds.items():
        if name not in part:
            found.append(f"{owner} has no {name}")
        elif not isinstance(part[name], kind) or isinstance(part[name], bool):
            found.append(f"{owner}s {name} is of type {type(part[name]).__name__}")
    return found


def _leaves(part: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """All values below, each with the nearest name above it."""
    if isinstance(part, dict):
        for key, value in part.items():
            yield from _leaves(value, key)
    elif isinstance(part, list):
        for value in part:
            yield from _leaves(value, name)
    else:
        yield name, part
