"""Examples that nothing else runs."""

import runpy
import tempfile
from pathlib import Path

import torch

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_a_layer_of_ones_own(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    source = (EXAMPLES / "own_layer.py").read_text()
    shortened = source.replace("learning_starts=100", "learning_starts=10").replace("learn(300)", "learn(32)")
    assert shortened.count("learn(32)") == 1
    (tmp_path / "example.py").write_text(shortened)
    names = runpy.run_path(str(tmp_path / "example.py"), run_name="example")
    layers = [names["model"].q_net.features_extractor.process, *names["model"].q_net.features_extractor.process_further]
    assert [type(layer.layer).__name__ for layer in layers] == ["Springs", "Springs"]
    assert "32 steps with Springs" in capsys.readouterr().out
    # Two keypoints far apart hardly hear of each other once it has learned to; edges reach the layer at once.
    nodes, index = torch.rand(2, 64), torch.tensor([[1], [0]])
    near, far = (layers[0](nodes, index, torch.tensor([[0.0, scale, scale]])) for scale in (0.1, 2.0))
    assert not torch.equal(near[0], far[0])
