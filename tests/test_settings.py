from types import SimpleNamespace

import pytest
import torch

from sb3_permakey.precision import resolve_device
from sb3_permakey.settings import require_range, require_suffix


def test_what_is_in_its_range_passes():
    settings = SimpleNamespace(steps=1, epsilon=1.0, seed=None, out="a.PNG", picture=None)
    require_range(settings, 1, None, "steps", "seed")
    require_range(settings, 0, 1, "epsilon", "seed")
    require_suffix(settings, (".png", ".gif"), "out", "picture")


@pytest.mark.parametrize(
    ("low", "high", "value", "words"),
    [
        (1, None, 0, "x must be at least 1, not 0"),
        (0, 1, 1.5, "x must be from 0 to 1, not 1.5"),
        (0, None, float("nan"), "x must be at least 0, not nan"),
        (0, 1, float("nan"), "x must be from 0 to 1, not nan"),
    ],
)
def test_what_is_not_is_named(low, high, value, words):
    with pytest.raises(ValueError, match=words):
        require_range(SimpleNamespace(x=value), low, high, "x")


def test_endings_are_named():
    with pytest.raises(ValueError, match="out must name a .png or .gif file, not k.foo"):
        require_suffix(SimpleNamespace(out="k.foo"), (".png", ".gif"), "out")


def test_devices_that_are_not_here_are_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert resolve_device("cpu") == resolve_device("auto" if not torch.cuda.is_available() else "cpu")
    for device in ("foo", "cuda:99", "mps:7"):
        with pytest.raises(ValueError, match=rf"device must be .*\(it finds 0\), not '{device}'"):
            resolve_device(device)
