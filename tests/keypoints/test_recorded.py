import json
import sys

import numpy as np
import pytest

from sb3_permakey.keypoints import KeypointFileError, RecordedKeypoints, read_keypoints, write_keypoints
from sb3_permakey.keypoints.recorded import source_pixels

SUFFIXES = [".parquet", ".npz", ".csv"]


@pytest.fixture(params=SUFFIXES)
def suffix(request):
    if request.param == ".parquet":
        pytest.importorskip("pyarrow.parquet")
    return request.param


def two_on_three(**optional) -> RecordedKeypoints:
    """Two keypoints on three frames of two episodes; on the second frame the readout gives them in the other order."""
    centers = np.array([[[-1, 0], [1, 0.5]], [[-0.75, 0], [1, 0.6]], [[0.1, 0.2], [0.3, 0.4]]], np.float32)
    return RecordedKeypoints(
        np.arange(3), np.array([0, 0, 1]), np.array([[0, 1], [1, 0], [0, 1]]), centers, (168, 42), **optional
    )


def test_source_pixels_are_centres_of_the_areas_that_were_resized():
    corners = np.array([[-1, -1], [1, 1]])
    assert source_pixels(corners, (84, 84)).tolist() == [[0, 0], [83, 83]]
    # A pixel of the small frame is 2 rows, 0 and 1, and half a column, whose centre is at 0.25 from the left edge.
    assert source_pixels(corners, (168, 42)).tolist() == [[0.5, -0.25], [166.5, 41.25]]


def test_what_is_written_is_read(tmp_path, suffix):
    random = np.random.default_rng(0)
    confidence, features = (random.random((3, 2)).astype(np.float32), random.normal(size=(3, 2, 3)).astype(np.float32))
    given = two_on_three(confidence=confidence, features=features, description={"source": "v.mp4"})
    found = read_keypoints(write_keypoints(tmp_path / f"k{suffix}", given))
    for name in ("frames", "episodes", "places", "centers", "centers_px", "confidence", "features"):
        expected, values = getattr(given, name), getattr(found, name)
        assert values.dtype == expected.dtype, name
        assert np.array_equal(values, expected), name
    assert (found.size, found.description) == ((168, 42), {"source": "v.mp4"})


def test_without_confidence_and_features(tmp_path, suffix):
    found = read_keypoints(write_keypoints(tmp_path / f"k{suffix}", two_on_three()))
    assert found.confidence is None
    assert found.features is None


def test_rows_of_a_csv(tmp_path):
    path = write_keypoints(tmp_path / "k.csv", two_on_three(confidence=np.full((3, 2), 0.5, np.float32)))
    first, *lines = path.read_text().splitlines()
    assert json.loads(first.removeprefix("# sb3_permakey ")) == {"version": 1, "rows": 6, "height": 168, "width": 42}
    assert lines[:5] == [
        "episode,frame,keypoint,identity,y,x,y_px,x_px,confidence",
        "0,0,0,0,-1.0,0.0,0.5,20.5,0.5",
        "0,0,1,1,1.0,0.5,166.5,30.875,0.5",
        "0,1,0,1,1.0,0.6,166.5,32.95,0.5",
        "0,1,1,0,-0.75,0.0,21.25,20.5,0.5",
    ]


def test_tables_of_other_programs_have_the_same_columns(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow.parquet")
    paths = [write_keypoints(tmp_path / f"k{suffix}", two_on_three()) for suffix in (".csv", ".parquet")]
    table, other = pandas.read_csv(paths[0], comment="#"), pandas.read_parquet(paths[1])
    assert list(table.columns) == list(other.columns)
    assert np.allclose(table.to_numpy(), other.to_numpy())


def test_broken_files(tmp_path, suffix):
    path = tmp_path / f"k{suffix}"
    with pytest.raises(KeypointFileError, match="no file of keypoints at"):
        read_keypoints(path)
    whole = write_keypoints(path, two_on_three()).read_bytes()
    for broken in (whole[: len(whole) * 3 // 4], b"", b"PK nothing", whole[: whole.rindex(b"\n", 0, -1) + 1]):
        path.write_bytes(broken)
        with pytest.raises(KeypointFileError, match="is not a whole file of keypoints"):
            read_keypoints(path)


def test_another_version(tmp_path):
    path = write_keypoints(tmp_path / "k.csv", two_on_three())
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(KeypointFileError, match="has version 2 of files of keypoints, this release reads 1"):
        read_keypoints(path)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("\n0,0,1,1,", "\n0,0,1,0,", "column identity does not number"),
        ("\n0,0,1,1,", "\n0,0,0,1,", "column keypoint does not number"),
        ("\n0,0,1,1,1.0", "\n0,0,1,1,1.5", "y and x are not all from -1 to 1"),
        ("\n0,0,1,1,1.0", "\n0,0,1,1,nan", "y and x are not all from -1 to 1"),
        ("identity", "identities", "it lacks 'identity'"),
        ("\n0,0,1,1,", "\n0,7,1,1,", "different numbers of keypoints"),
    ],
)
def test_values_that_cannot_be(tmp_path, old, new, reason):
    path = write_keypoints(tmp_path / "k.csv", two_on_three())
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(KeypointFileError, match=reason):
        read_keypoints(path)


def test_other_endings_and_no_pyarrow(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"keypoints are files .parquet, .npz, .csv, not .*k.pkl"):
        write_keypoints(tmp_path / "k.pkl", two_on_three())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"^.parquet files need pyarrow .*\[parquet\]"):
        write_keypoints(tmp_path / "k.parquet", two_on_three())
    assert list(tmp_path.iterdir()) == []


def test_objects_are_not_unpickled(tmp_path):
    path = write_keypoints(tmp_path / "k.npz", two_on_three())
    with np.load(path) as archive:
        columns = dict(archive)
    np.savez(path, **{**columns, "y": np.array([{}] * 6)})
    with pytest.raises(KeypointFileError, match="allow_pickle"):
        read_keypoints(path)
