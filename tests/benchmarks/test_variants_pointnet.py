from pathlib import Path

import pytest

from benchmarks.variants import pointnet
from benchmarks.variants.pointnet import Variant, VariantsBenchmark, figures


def test_variants_are_known_by_name():
    with pytest.raises(ValueError, match="unknown variant 'square': one of 'paper', "):
        VariantsBenchmark(
            Path("checkpoint"), Path("frames"), "MsPacman", Path("out.json"), variants=("paper", "square")
        )


def test_windows_shrink_over_the_first_half_of_the_steps():
    shrinking = Variant(window_std=0.1, first_window_std=0.4)
    assert [shrinking.window_std_at(progress) for progress in (0.0, 0.25, 0.5, 1.0)] == pytest.approx(
        [0.4, 0.2, 0.1, 0.1]
    )
    assert Variant(window_std=0.1).window_std_at(0.0) == pytest.approx(0.1)


def test_what_could_not_be_counted_is_no_number_in_json(monkeypatch):
    nan = float("nan")
    scores = {"f1": (0.5, 0.4, 0.6), "distractor_rate": (nan, nan, nan)}
    monkeypatch.setattr(pointnet, "score_keypoints", lambda *arguments: scores)
    assert figures(None, None, None, 0.1) == {"f1": [0.5, 0.4, 0.6], "distractor_rate": [None, None, None]}
