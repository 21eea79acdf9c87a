import json

import pytest
import torch

from benchmarks.speed import updates
from benchmarks.speed.operations import Operations


def test_operations_are_counted_by_what_they_cost():
    with Operations() as counted:
        a = torch.ones(3)
        ((a + a) * 2).view(3, 1).sum()
    assert dict(counted.counts) == {"operations": 4, "views": 1}
    assert counted.names["mul"] == 1


def test_what_moves_is_counted_without_a_gpu():
    with Operations() as counted:
        there = torch.ones(3).to("meta")
        target = torch.zeros(3)
        target.copy_(there)
        back = [there.cpu(), torch.as_tensor(there.sum().item())]
        with pytest.raises(NotImplementedError):
            there.nonzero()
    moved = {name: counted.counts[name] for name in updates.MOVED}
    assert moved == {"to device": 1, "to host": 2, "numbers read": 1, "shapes read": 1}
    assert [part.sum().item() for part in back] == [0, 0]


def test_a_tiny_run(monkeypatch, tmp_path, one_thread):
    monkeypatch.setattr(updates, "WARM_UP_STEPS", 12)
    monkeypatch.setattr(updates, "AGENTS", {"Rainbow": lambda device: updates.rainbow(3, device)})
    for label in ("old", "new"):
        updates.main(updates.UpdatesBenchmark(label, repeats=2, out=tmp_path / "updates"))
    old, new = (json.loads((tmp_path / f"updates/{label}.json").read_text()) for label in ("old", "new"))
    assert (old["order"], new["order"]) == (1, 2)
    found = new["agents"]["Rainbow"]["update"]
    assert found["operations"] > new["agents"]["Rainbow"]["acting"]["operations"] > 10
    assert len(found["ms_of_each"]) == 2
    [row] = [
        line for line in (tmp_path / "updates.md").read_text().splitlines() if line.startswith("| Rainbow, update")
    ]
    assert row.split(" | ")[-1] == f"{old['agents']['Rainbow']['update']['ms']:.2f}, {found['ms']:.2f} |"
