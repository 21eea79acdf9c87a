import json

import pytest

from benchmarks import transporter_variants
from benchmarks.transporter_variants import TransporterVariants, main


def test_the_papers_softmax_is_the_only_difference(tmp_path, monkeypatch):
    trained, scored = [], []

    def pretrain(config):
        trained.append(config)
        return config.out

    def score(config):
        scored.append(config.checkpoints[0])
        return {"scores": {"keypoints": {"f1": {"value": len(scored) / 10}}}}

    monkeypatch.setattr(transporter_variants, "pretrain", pretrain)
    monkeypatch.setattr(transporter_variants, "score", score)
    config = TransporterVariants(("Enduro",), folder=tmp_path, results=tmp_path)
    main(config)
    main(config)  # what has a result is done
    (training,) = trained
    assert (training.model.softmax, training.model.num_keypoints) == ("axes", 10)
    assert (training.method, training.max_steps, training.seed, training.distractor) == ("transporter", 4000, 0, None)
    assert training.frames == tmp_path / "frames" / "enduro"
    assert scored == [str(training.out), "enduro-transporter"]
    result = json.loads((tmp_path / "enduro.json").read_text())
    assert {name: each["f1"]["value"] for name, each in result["variants"].items()} == {
        "per-axis softmax (paper)": 0.1,
        "plane softmax": 0.2,
    }


def test_unknown_games_are_named():
    with pytest.raises(ValueError, match="unknown game 'Pong'"):
        TransporterVariants(("Pong",))
