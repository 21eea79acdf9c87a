import json
from pathlib import Path

import pytest

from benchmarks.variants import softmax as softmax_variants
from benchmarks.variants.softmax import SoftmaxBenchmark, main


@pytest.mark.parametrize(
    ("method", "package", "frozen_from"),
    [("transporter", "enduro-transporter", None), ("permakey", "enduro-teacher", Path("enduro-teacher"))],
)
def test_the_papers_softmax_is_the_only_difference(tmp_path, monkeypatch, method, package, frozen_from):
    trained, scored = [], []

    def pretrain(config):
        trained.append(config)
        return config.out

    def score(config):
        scored.append(config.checkpoints[0])
        return {"scores": {"keypoints": {"f1": {"value": len(scored) / 10}}}}

    monkeypatch.setattr(softmax_variants, "pretrain", pretrain)
    monkeypatch.setattr(softmax_variants, "score", score)
    config = SoftmaxBenchmark(method, ("Enduro",), folder=tmp_path, results=tmp_path)
    main(config)
    main(config)  # what has a result is done
    (training,) = trained
    assert (training.method, training.seed, training.distractor, training.frozen_from) == (method, 0, None, frozen_from)
    assert (training.model.softmax, training.model.num_keypoints) == ("axes", 10)
    assert training.model.map_power == (0.5 if method == "permakey" else 1.0)
    assert training.pointnet_steps == (8000 if method == "permakey" else None)
    assert training.frames == tmp_path / "frames" / "enduro"
    assert scored == [str(training.out), package]
    result = json.loads((tmp_path / f"softmax_{method}" / "enduro.json").read_text())
    assert {name: each["f1"]["value"] for name, each in result["variants"].items()} == {
        "per-axis softmax (paper)": 0.1,
        "plane softmax": 0.2,
    }


def test_unknown_games_are_named():
    with pytest.raises(ValueError, match="unknown game 'Pong'"):
        SoftmaxBenchmark("transporter", ("Pong",))
