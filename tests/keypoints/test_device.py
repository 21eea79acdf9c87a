import ctypes
import subprocess
import sys

import pytest
import torch

from sb3_permakey.keypoints.device import free_bytes, resolve_device, resolve_precision

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


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, torch.bfloat16),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, torch.bfloat16),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, torch.float32),
        ({"ONEDNN_MAX_CPU_ISA": "avx2"}, torch.float32),
        ({"DNNL_MAX_CPU_ISA": "AVX2"}, torch.float32),
        ({"ONEDNN_MAX_CPU_ISA": "DEFAULT", "DNNL_MAX_CPU_ISA": "AVX2"}, torch.bfloat16),
    ],
)
def test_onednns_limit_switches_bfloat16_off(monkeypatch, variables, expected):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert resolve_precision("auto", torch.device("cpu")) == expected
    assert resolve_precision("bfloat16", torch.device("cpu")) == torch.bfloat16


@pytest.mark.parametrize(
    ("free", "share", "reserved", "expected"),
    [(70, 1.0, 5, 70), (70, 0.5, 0, 40), (70, 0.5, 15, 25), (10, 0.5, 15, 10)],
)
def test_a_process_may_take_what_is_free_and_no_more_than_its_share(monkeypatch, free, share, reserved, expected):
    """Of 80 bytes, with torch's functions as a stand-in has them: the share is asked by number alone."""

    def share_of(device):
        assert device is None or isinstance(device, int)
        return share

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 80))
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", share_of)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved)
    for name in ("cuda", "cuda:1"):
        assert free_bytes(torch.device(name)) == expected
    assert free_bytes(torch.device("cpu")) is None


GLIBC = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt")
MEMORY = """
import resource
from pathlib import Path

import numpy as np

from sb3_permakey.keypoints.device import freed_memory_kept

def used():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 10**6

def use_and_free():
    blocks = [np.ones(40_000_000, np.uint8) for _ in range(5)]
    del blocks
    return used()

before = use_and_free()
with freed_memory_kept():
    within = use_and_free()
after = used()
again = use_and_free()
reserved = np.zeros(500_000_000, np.uint8)
print(before, within, after, again, used())
"""
"""Megabytes that a process really uses."""


@pytest.mark.skipif(not GLIBC, reason="glibc's settings")
def test_freed_memory_is_kept_within_and_given_back_afterwards():
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    before, within, after, again, with_reserved = map(int, done.stdout.split())
    assert within - before > 150
    assert after - before < 50
    # Large blocks are the system's again: they do not stay, and are not filled before they are used.
    assert again - after < 50
    assert with_reserved - after < 50
