from pathlib import Path

import pytest
import torch

from benchmarks.speed.operations import Operations
from sb3_permakey.keypoints import TransporterLosses
from sb3_permakey.pretraining.unread_losses import TrainingDivergedError, UnreadLosses

STATE = Path("state.safetensors")


def note(unread, step, value, device="cpu"):
    loss = torch.tensor(value, device=device)
    unread.note(step, loss, TransporterLosses(loss))


def test_the_first_step_that_diverged_is_named_when_losses_are_read():
    unread = UnreadLosses(STATE, at_once=False)
    for step, value in enumerate([1.0, 2.0, float("inf"), float("nan")]):
        note(unread, step, value)
    with pytest.raises(
        TrainingDivergedError, match=r"at step 2: \{'reconstruction': inf\}; state.safetensors is the last good state"
    ):
        unread.read()
    unread.read()  # which has nothing to read any more


def test_a_cpu_reads_at_once():
    unread = UnreadLosses(STATE, at_once=True)
    note(unread, 0, 1.0)
    with pytest.raises(TrainingDivergedError, match="at step 1"):
        note(unread, 1, float("nan"))


def test_many_are_one_copy():
    unread = UnreadLosses(STATE, at_once=False)
    with Operations() as operations:
        for step in range(10):
            note(unread, step, 1.0, "meta")
        before = operations.counts["to host"]
        unread.read()
    assert operations.counts["to host"] - before == 1
    assert operations.counts["numbers read"] == 0
