import hashlib
import json
import re
import shutil

import pytest

from sb3_permakey.keypoints import (
    CheckpointError,
    Transporter,
    checkpoint_exists,
    load_checkpoint,
    model_fingerprint,
    save_for_detection,
    shipped,
    shipped_checkpoints,
)
from sb3_permakey.keypoints.shipped import checkpoint_table

ENTRY = {
    "game": "MsPacman",
    "method": "transporter",
    "noise": None,
    "num_keypoints": 7,
    "command": "sb3-permakey pretrain --method transporter",
    "minutes": 20.5,
    "fingerprint": "01ab",
    "sha256": "23cd",
    "scores": {"precision": 0.5, "recall": 0.25, "f1": 1 / 3, "tracking": 0.9},
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder in the place of the package's, with one checkpoint under three names."""
    path = tmp_path / "checkpoints"
    file = save_for_detection(Transporter(), path / "mspacman-transporter.safetensors")
    for name in ("mspacman", "seaquest-noisy"):
        shutil.copy(file, path / f"{name}.safetensors")
    entries = {
        "mspacman": ENTRY,
        "mspacman-transporter": ENTRY,
        "seaquest-noisy": ENTRY | {"game": "Seaquest", "noise": "both", "num_keypoints": 10, "scores": {}},
    }
    write_index(path, entries)
    monkeypatch.setattr(shipped, "FOLDER", path)
    return path


def write_index(folder, entries, version=2):
    index = {"format": "sb3-permakey shipped checkpoints", "version": version, "checkpoints": entries}
    (folder / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mspacman", "mspacman"),
        ("MsPacman", "mspacman"),
        ("mspacman-transporter", "mspacman-transporter"),
        ("MsPacman_Transporter", "mspacman-transporter"),
        ("Seaquest-Noisy", "seaquest-noisy"),
    ],
)
def test_names_whatever_their_case_and_hyphens(folder, name, file):
    assert shipped.locate_checkpoint(name) == folder / f"{file}.safetensors"


def test_load_by_name(folder):
    assert isinstance(load_checkpoint("MsPacman"), Transporter)


def test_an_existing_file_comes_before_a_name(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mspacman").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="^mspacman is truncated"):
        load_checkpoint("mspacman")


@pytest.mark.parametrize("path", ["mspacman.safetensors", "folder/mspacman", "./mspacman"])
def test_a_path_is_no_name(folder, path):
    with pytest.raises(CheckpointError, match="no keypoint checkpoint at"):
        load_checkpoint(path)


def test_unknown_name_is_told_the_nearest(folder):
    with pytest.raises(CheckpointError, match=r"named 'seaqest': the nearest name is 'seaquest-noisy'.*checkpoints`"):
        load_checkpoint("seaqest")
    with pytest.raises(CheckpointError, match="named 'krull': the package has none like it"):
        load_checkpoint("krull")


def test_none_shipped(folder, monkeypatch):
    monkeypatch.setattr(shipped, "FOLDER", folder / "nowhere")
    assert shipped_checkpoints() == []
    assert checkpoint_table([]).splitlines()[0].split() == list(shipped.TABLE_HEADER)
    with pytest.raises(CheckpointError, match="named 'mspacman': the package has none of its own"):
        load_checkpoint("mspacman")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "sb3-permakey shipped checkpoints"}'])
def test_broken_index(folder, content):
    (folder / "index.json").write_text(content)
    with pytest.raises(CheckpointError, match="no index of checkpoints that this release reads"):
        shipped_checkpoints()


def test_index_of_another_version_or_with_other_entries(folder):
    write_index(folder, {}, version=1)
    with pytest.raises(CheckpointError, match="version 1"):
        shipped_checkpoints()
    write_index(folder, {"mspacman": ENTRY | {"colour": 1}})
    with pytest.raises(CheckpointError, match="colour"):
        shipped_checkpoints()


def test_index_that_names_a_missing_file(folder):
    (folder / "mspacman.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"names files that are not beside it: mspacman\.safetensors"):
        shipped_checkpoints()


def test_table(folder):
    peaks = {"peaks_precision": 0.75, "peaks_recall": 1.0, "peaks_f1": 0.857}
    entries = json.loads((folder / "index.json").read_text())["checkpoints"]
    write_index(folder, entries | {"mspacman": ENTRY | {"scores": ENTRY["scores"] | peaks}})
    (folder / "seaquest-noisy.safetensors").write_bytes(b"x" * 44_600)
    lines = checkpoint_table(shipped_checkpoints()).splitlines()
    header, first, second, noisy = (re.split(r"  +", line) for line in lines[:4])
    size = f"{(folder / 'mspacman.safetensors').stat().st_size / 1e6:.1f} MB"
    assert header == ["name", "game", "method", "noise", "K", "pointnet", "peaks", "contrast", "size"]
    scores = "0.50 / 0.25 / 0.33"
    assert first == ["mspacman", "MsPacman", "transporter", "-", "7", scores, "0.75 / 1.00 / 0.86", "-", size]
    assert second == ["mspacman-transporter", "MsPacman", "transporter", "-", "7", scores, "-", "-", size]
    assert noisy == ["seaquest-noisy", "Seaquest", "transporter", "both", "10", "-", "-", "-", "45 kB"]
    assert "precision / recall / F1" in lines[-3]


def test_the_packages_own_index_is_whole():
    for checkpoint in shipped_checkpoints():
        assert shipped.locate_checkpoint(checkpoint.name) == checkpoint.path
        assert hashlib.sha256(checkpoint.path.read_bytes()).hexdigest() == checkpoint.sha256
        model = load_checkpoint(checkpoint.name)
        assert model.config.num_keypoints == checkpoint.num_keypoints
        assert model_fingerprint(model) == checkpoint.fingerprint
        assert shipped.named_by_fingerprint(checkpoint.fingerprint) == checkpoint.name


def test_every_student_has_a_teacher_and_the_plain_name():
    methods = {one.name: one.method for one in shipped_checkpoints()}
    teachers = [name for name, method in methods.items() if method == "permakey"]
    assert teachers
    assert all(name.endswith(shipped.OF_TEACHER) for name in teachers)
    assert {methods[name.removesuffix(shipped.OF_TEACHER)] for name in teachers} == {"distilled"}


def test_what_is_packaged_weighs_little():
    packaged = [one for one in shipped_checkpoints() if one.method != "permakey"]
    assert all(one.path.parent == shipped.FOLDER for one in packaged)
    assert sum(one.path.stat().st_size for one in packaged) <= 5e6


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    """A folder in the hub's place, with the teacher that the index names and the package lacks."""
    there = save_for_detection(Transporter(), tmp_path / "hub" / "mspacman-teacher.safetensors")
    entry = ENTRY | {"sha256": hashlib.sha256(there.read_bytes()).hexdigest()}
    write_index(folder, {"mspacman": ENTRY, "mspacman-teacher": entry})
    monkeypatch.setenv(shipped.HUB_VARIABLE, there.parent.as_uri())
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return there


def test_a_teacher_is_fetched_when_it_is_first_asked_for(hub, tmp_path):
    assert checkpoint_exists("mspacman-teacher")
    rows = checkpoint_table(shipped_checkpoints()).splitlines()
    assert [row.split()[0] for row in rows if row.endswith("to fetch")] == ["mspacman-teacher"]
    assert not (tmp_path / "torch").exists()
    assert isinstance(load_checkpoint("MsPacman-Teacher"), Transporter)
    hub.unlink()
    assert isinstance(load_checkpoint("mspacman-teacher"), Transporter)  # from where it was put


def test_a_file_with_another_sum_is_not_taken(hub, tmp_path):
    hub.write_bytes(b"something else")
    with pytest.raises(CheckpointError, match="(?s)^mspacman-teacher is not in the package.*invalid hash"):
        load_checkpoint("mspacman-teacher")
    assert not list((tmp_path / "torch").rglob("*.safetensors*"))


def test_an_older_releases_file_is_fetched_anew(hub):
    put = shipped.locate_checkpoint("mspacman-teacher")
    put.write_bytes(b"an older one")
    assert isinstance(load_checkpoint("mspacman-teacher"), Transporter)


@pytest.mark.parametrize("place", ["file:///nowhere", "no place at all"])
def test_a_hub_that_has_no_such_file_is_named(hub, monkeypatch, place):
    monkeypatch.setenv(shipped.HUB_VARIABLE, place)
    with pytest.raises(CheckpointError) as error:
        load_checkpoint("mspacman-teacher")
    assert f"{place}/mspacman-teacher.safetensors does not give it" in str(error.value)
    assert f"{shipped.HUB_VARIABLE} names another place" in str(error.value)
    assert ENTRY["command"] in str(error.value)


def test_a_clones_own_teacher_needs_no_hub(hub, folder, monkeypatch):
    monkeypatch.setenv(shipped.HUB_VARIABLE, "file:///nowhere")
    own = folder / "teachers" / hub.name
    own.parent.mkdir()
    shutil.move(hub, own)
    assert shipped.locate_checkpoint("mspacman-teacher") == own
