import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sb3_permakey.files import (
    InUseError,
    WriteError,
    atomic_array,
    atomic_file,
    locked_file,
    locked_folder,
    read_json,
    require_writable,
    write_atomically,
    write_json,
)


def test_a_failure_while_writing_leaves_the_old_file_alone(tmp_path):
    path = write_atomically(tmp_path / "file", b"old")

    def fail() -> None:
        with atomic_file(path) as file:
            file.write(b"new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_in_a_sentence(tmp_path):
    path = write_atomically(tmp_path / "file", b"old")
    script = (
        "import resource, sys\n"
        "from sb3_permakey.files import WriteError, write_atomically\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try:\n    write_atomically(sys.argv[1], bytes(1000))\n"
        "except WriteError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == f"could not write {path}: File too large\n"
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(WriteError, match="could not write .*file/inside: Not a directory|File exists"):
        write_json(tmp_path / "file" / "inside", {})


def test_new_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    path = write_atomically(tmp_path / "atomic", b"")
    assert os.stat(path).st_mode == os.stat(tmp_path / "plain").st_mode


def test_broken_json_is_named(tmp_path):
    (tmp_path / "x.json").write_text('{"a": ')
    with pytest.raises(ValueError, match=r"x.json is not a whole JSON file \(Expecting value"):
        read_json(tmp_path / "x.json")
    write_json(tmp_path / "x.json", {"a": [1]})
    assert read_json(tmp_path / "x.json") == {"a": [1]}


def test_arrays_part_by_part(tmp_path):
    whole = np.arange(24, dtype=np.float32).reshape(6, 2, 2)
    with atomic_array(tmp_path / "x.npy", np.float16, whole.shape) as array:
        for start in range(0, 6, 2):
            array.append(whole[start : start + 2])
        assert not (tmp_path / "x.npy").exists()
    stored = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert stored.dtype == np.float16
    np.testing.assert_array_equal(stored, whole)


def test_places_are_tried_before_the_work(tmp_path):
    (tmp_path / "file").write_text("old")
    require_writable(tmp_path / "file", tmp_path / "new" / "folder" / "file.json", None)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"
    for place, reason in (
        (tmp_path, "Is a directory"),
        (tmp_path / "file" / "inside.json", "Not a directory"),
        (tmp_path / ("n" * 300), "File name too long"),
        (Path("/proc/x.json"), ""),
    ):
        with pytest.raises(WriteError, match=f"could not write {place}: {reason}"):
            require_writable(tmp_path / "file", place)


@pytest.mark.parametrize(("locked", "name"), [(locked_folder, "run"), (locked_file, "run.json")])
def test_a_place_is_held_by_one_run_at_a_time(tmp_path, locked, name):
    place = tmp_path / "folder" / name
    with locked(place):
        with pytest.raises(InUseError, match=f"another run is writing {place}: wait for its end"), locked(place):
            pass
        # The refused one took nothing away.
        with pytest.raises(InUseError), locked(place):
            pass
        with locked(place.with_name("other")):
            pass
    assert not place.parent.exists()
    place.parent.mkdir()
    with locked(place):
        pass
    assert place.parent.exists()
    with locked_folder(place.parent):
        (place.parent / "kept").write_text("")
    assert [path.name for path in place.parent.iterdir()] == ["kept"]


def test_a_killed_run_lets_go(tmp_path):
    script = (
        "import sys, time\nfrom sb3_permakey.files import locked_folder\n"
        "with locked_folder(sys.argv[1]):\n    print('held', flush=True)\n    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(InUseError), locked_folder(tmp_path / "run"):
            pass
        process.send_signal(signal.SIGKILL)
    with locked_folder(tmp_path / "run"):
        assert (tmp_path / "run" / ".lock").exists()
    assert not list((tmp_path / "run").iterdir())


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with (
        pytest.raises(WriteError, match="could not write .*file/run: Not a directory"),
        locked_folder(tmp_path / "file" / "run"),
    ):
        pass
