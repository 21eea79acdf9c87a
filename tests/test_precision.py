import pytest
import torch

from sb3_permakey.precision import resolve_device

GPUS = torch.cuda.device_count() if torch.cuda.is_available() else 0


def test_devices_that_are_there():
    assert resolve_device("cpu") == resolve_device(torch.device("cpu")) == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if GPUS else "cpu")


@pytest.mark.parametrize("name", ["foo", "", "cuda:x"])
def test_a_name_that_is_no_device(name):
    with pytest.raises(ValueError, match=f"device must be auto, cpu, cuda or another that torch knows, not '{name}'"):
        resolve_device(name)


@pytest.mark.parametrize("name", [f"cuda:{GPUS}", "meta"])
def test_a_device_that_is_not_there(name):
    with pytest.raises(ValueError, match=f"there is no device {name} on this machine"):
        resolve_device(name)
