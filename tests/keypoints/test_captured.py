"""Calls that are captured and replayed, with a stand-in for CUDA's graphs where there is no GPU."""

import numpy as np
import pytest
import torch
from recorder import Recorder

from sb3_permakey.common.transition_buffer import Transitions
from sb3_permakey.keypoints.captured import CHANGES_TOLD, WARM_UP, CapturedCall, mapped, tensors_of

USELESS = "nothing is captured, for the key changes"


def counting(**settings):
    seen = []
    return CapturedCall(lambda batch: seen.append(batch["x"].sum().item()), capture=Recorder, **settings), seen


def test_is_captured_after_a_warm_up_and_anew_where_the_key_or_shapes_change():
    call, seen = counting()
    Recorder.made = 0
    for number in range(WARM_UP + 3):
        call({"x": torch.full((2,), float(number))}, key="a")
    assert (Recorder.made, seen) == (1, [2.0 * number for number in range(WARM_UP + 3)])
    call({"x": torch.ones(3)}, key="a")
    call({"x": torch.ones(3)}, key="b")
    assert Recorder.made == 1
    assert seen[-2:] == [3.0, 3.0]


def test_as_many_captures_are_kept_as_wanted_those_used_last():
    call, seen = counting(most=2)
    Recorder.made = 0
    for _ in range(WARM_UP + 2):
        for size in (1, 2):
            call({"x": torch.ones(size)})
    assert Recorder.made == 2
    call({"x": torch.ones(1)})
    call({"x": torch.ones(3)})  # in place of size 2
    for _ in range(WARM_UP + 1):
        call({"x": torch.full((1,), 5.0)})
        call({"x": torch.ones(2)})
    assert (Recorder.made, seen[-2:]) == (3, [5.0, 2.0])


def test_a_key_that_always_changes_is_told():
    call, _ = counting(useless=USELESS)
    for number in range(CHANGES_TOLD - 1):
        call({"x": torch.ones(1)}, key=number)
    with pytest.warns(UserWarning, match=USELESS):
        call({"x": torch.ones(1)}, key="another")


def test_tensors_of_a_batch():
    batch = Transitions({"a": torch.ones(1), "b": torch.zeros(2)}, *(torch.ones(3),) * 4, np.arange(3))
    assert [len(tensor) for tensor in tensors_of(batch)] == [1, 2, 3, 3, 3, 3]
    doubled = mapped((batch, None), lambda tensor: 2 * tensor)[0]
    assert isinstance(doubled, Transitions)
    assert doubled.both["a"].item() == 2
    assert doubled.indices is batch.indices
