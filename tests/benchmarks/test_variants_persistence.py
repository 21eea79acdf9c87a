import json

import numpy as np
import pytest

from benchmarks.variants import persistence
from benchmarks.variants.persistence import PersistenceBenchmark, figures, main
from sb3_permakey.keypoints import Keypoints
from sb3_permakey.scores import FrameObjects, LabelledFrames


@pytest.fixture
def played() -> LabelledFrames:
    """Two episodes of three frames; one object, around the middle of the frame."""
    box = FrameObjects(np.array([[40.0, 40.0, 44.0, 44.0]]), ("Square",), ("Square 1",), np.array([False]))
    frames = np.zeros((6, 2, 84, 84, 3), np.uint8)
    return LabelledFrames("MsPacman", frames, [(box, box)] * 6, np.repeat([0, 1], 3))


def test_figures_by_hand(played):
    """One keypoint stays on the object; the other jumps away and back, as its features do."""
    places = np.zeros((6, 2, 2))
    places[[1, 4], 1] = 0.9
    features = np.tile(np.array([1.0, -1.0, 1.0, -1.0]), (6, 2, 1))
    features[[1, 4], 1] *= -1
    starts = np.array([True, False, False, True, False, False])
    found = figures(Keypoints(places, features), played, np.arange(6), starts)
    assert found["precision"][0] == pytest.approx(10 / 12)
    assert found["recall"][0] == 1
    # Of four steps within episodes, two keypoints each.
    assert found["jumps"] == 4 / 8
    # Each jump changes 4 numbers by 2, of 8 such steps 4; two of twelve are -1 times the others, whose mean is 2/3.
    assert found["features_change"] == pytest.approx((4 * 16 / 8 / 2) / (4 * (1 - (2 / 3) ** 2)), rel=1e-4)


def test_games_are_done_once(played, monkeypatch, tmp_path):
    monkeypatch.setattr(persistence, "labelled_frames", lambda *arguments, **settings: played)
    monkeypatch.setattr(persistence, "PERSISTENCES", (1.0, 2.0))
    settings = {"games": ("MsPacman",), "results": tmp_path / "persistence", "table": tmp_path / "persistence.md"}
    main(PersistenceBenchmark(**settings, episodes=2, longest=2))
    found = json.loads((tmp_path / "persistence" / "mspacman.json").read_text())
    assert found["frames"] == 4
    assert list(found["variants"])[1::2] == ["peaks, persistence 2", "peaks of the contrast, persistence 2"]
    assert "| peaks, persistence 1 | " in (tmp_path / "persistence.md").read_text()
    monkeypatch.setattr(persistence, "measure", None)
    main(PersistenceBenchmark(**settings, episodes=2, longest=2))
    with pytest.raises(ValueError, match="no checkpoint of Pong"):
        PersistenceBenchmark(games=("Pong",))
