"""Modules that moved still give their classes at the places that old files name; nothing else asks for them there."""

import base64
import json
import lzma
import pickle
import pickletools
import re
import zipfile
from importlib import import_module
from io import BytesIO
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OLD_FILES = ROOT / "tests" / "fixtures" / "aa76460"
OLD_PLACES = {
    "sb3_permakey.observation": {"KeypointSpace": "sb3_permakey.envs.keypoint_space"},
    "sb3_permakey.keypoint_space": {"KeypointSpace": "sb3_permakey.envs.keypoint_space"},
    "sb3_permakey.extractors": {
        "KeypointCNN": "sb3_permakey.encoders.cnn",
        "KeypointGNN": "sb3_permakey.encoders.gnn",
        "KeypointPairs": "sb3_permakey.encoders.pairs",
    },
    "sb3_permakey.keypoints.detector": {"ReadoutConfig": "sb3_permakey.keypoints.readouts"},
}


@pytest.mark.parametrize(
    ("old", "name", "place"), [(old, *one) for old, names in OLD_PLACES.items() for one in names.items()]
)
def test_an_old_place_gives_the_class_of_the_new_one(old, name, place):
    named_by_a_file = pickle.loads(f"c{old}\n{name}\n.".encode())
    assert named_by_a_file is getattr(import_module(place), name)
    assert named_by_a_file.__module__ == place


def test_modules_that_are_nothing_but_old_places_are_listed_with_all_that_they_give():
    thin = {}
    for path in (ROOT / "sb3_permakey").rglob("*.py"):
        if path.read_text().startswith('"""Old place of '):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            thin[module] = set(import_module(module).__all__)
    assert set(OLD_PLACES) - set(thin) == {"sb3_permakey.keypoints.detector"}
    assert thin == {module: set(OLD_PLACES[module]) for module in thin}


def test_nothing_here_names_an_old_place():
    old = re.compile(r"sb3_permakey\.(observation|keypoint_space|extractors)\b")
    sources = [
        path for folder in ("sb3_permakey", "benchmarks", "examples", "docs") for path in (ROOT / folder).rglob("*")
    ]
    texts = {path: path.read_text() for path in sources if path.suffix in (".py", ".md", ".yml")}
    assert len(texts) > 100
    assert [path for path, text in texts.items() if old.search(text)] == []


def classes_in(pickled):
    """The package's classes that a pickle names, as (module, name)."""
    strings = []
    for code, argument, _ in pickletools.genops(pickled):
        if "UNICODE" in code.name:
            strings.append(argument)
        elif code.name == "GLOBAL":
            yield tuple(argument.split(" "))
        elif code.name == "STACK_GLOBAL":
            yield tuple(strings[-2:])


def pickles_of(path):
    """The pickles in a buffer's file, or in the zip of an agent."""
    content = lzma.decompress(path.read_bytes())
    if ".zip" not in path.name:
        return [content]
    data = json.loads(zipfile.ZipFile(BytesIO(content)).read("data"))
    return [base64.b64decode(entry[":serialized:"]) for entry in data.values() if ":serialized:" in str(entry)]


@pytest.mark.parametrize("name", ["recurrent-dqn.zip", "recurrent-qrdqn.zip", "recurrent-dqn-buffer.pkl"])
def test_all_classes_that_old_files_name_are_where_they_say(name):
    named = {one for pickled in pickles_of(OLD_FILES / f"{name}.xz") for one in classes_in(pickled)}
    own = {(module, name) for module, name in named if module.startswith("sb3_permakey")}
    assert own
    for module, name in own:
        assert isinstance(getattr(import_module(module), name), type)
    moved = {(module, name) for module, name in own if getattr(import_module(module), name).__module__ != module}
    assert moved <= {(old, name) for old, names in OLD_PLACES.items() for name in names}
