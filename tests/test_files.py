import os
import subprocess
import sys

import numpy as np
import pytest

from sb3_permakey.files import WriteError, atomic_array, atomic_file, write_atomically, write_json


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


def test_arrays_part_by_part(tmp_path):
    whole = np.arange(24, dtype=np.float32).reshape(6, 2, 2)
    with atomic_array(tmp_path / "x.npy", np.float16, whole.shape) as array:
        for start in range(0, 6, 2):
            array.append(whole[start : start + 2])
        assert not (tmp_path / "x.npy").exists()
    stored = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert stored.dtype == np.float16
    np.testing.assert_array_equal(stored, whole)
