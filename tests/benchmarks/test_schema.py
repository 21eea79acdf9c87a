"""Every committed result holds what its benchmark's schema says, and names a clean commit."""

import json
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
from benchmarks.harness.results import write_result
from benchmarks.harness.schema import ResultSchema, all_schemas, file_problems, is_dirty, problems

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
SCHEMA = ResultSchema("tiny/*.json", {"seed": int, "score": float})
RESULT = {
    "seed": 1,
    "score": 0.5,
    "command": "python -m benchmarks.tiny",
    "commit": "0123456789ab",
    "versions": {"torch": "2.13.0"},
    "machine": {"cpu": "a CPU", "cores": 2, "gpu": None, "system": "Linux", "python": "3.11.7"},
}


def test_every_committed_result_is_as_its_schema_says():
    schemas = all_schemas()
    files = sorted(RESULTS.rglob("*.json"))
    assert len(files) > 230
    found = {str(path.relative_to(RESULTS)): file_problems(path, RESULTS, schemas) for path in files}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_results_of_no_clean_commit_are_counted_in_the_report():
    dirty = [path for path in RESULTS.rglob("*.json") if is_dirty(json.loads(path.read_text()))]
    assert {path.parent.name for path in dirty} == {"memory"}
    assert f"\n{len(dirty)} of the " in (RESULTS / "memory.md").read_text()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"seed": None}, "its seed is of type NoneType"),
        ({"seed": True}, "its seed is of type bool"),
        ({"commit": "0123456789ab-dirty"}, "its commit '0123456789ab-dirty' is not that of committed code"),
        ({"commit": None}, "its commit is of type NoneType"),
        ({"later": [{"commit": "main"}]}, "its commit 'main' is not that of committed code"),
        ({"scores": {"f1": [1.0, float("nan")]}}, "its f1 is nan"),
        ({"machine": {**RESULT["machine"], "cores": "two"}}, "its machines cores is of type str"),
        ({"sha256": "0"}, "its sha256 is not that of its content"),
    ],
)
def test_what_is_wrong_is_told(change, problem):
    assert problems(RESULT, SCHEMA) == []
    assert problem in problems({**RESULT, **change}, SCHEMA)


@pytest.mark.parametrize("name", ["seed", "command", "commit", "versions", "machine"])
def test_what_lacks_is_told(name):
    assert problems({key: value for key, value in RESULT.items() if key != name}, SCHEMA) == [f"it has no {name}"]
    assert problems([], SCHEMA) == ["it is no JSON object"]


def test_known_dirty_commits_are_let_through():
    known = ResultSchema("tiny/*.json", SCHEMA.parts, frozenset({"0123456789ab-dirty"}))
    assert problems({**RESULT, "commit": "0123456789ab-dirty"}, known) == []


def test_files_have_one_schema(tmp_path):
    path = write_result(tmp_path / "tiny" / "a.json", RESULT)
    assert file_problems(path, tmp_path, [SCHEMA]) == []
    assert file_problems(path, tmp_path, []) == ["0 schemas have files of its name, not one"]
    path.write_text("{")
    assert file_problems(path, tmp_path, [SCHEMA])[0].startswith("it is no JSON: ")
    # A pattern does not reach into folders of folders.
    assert not SCHEMA.matches(Path("other/tiny/a.json"))
