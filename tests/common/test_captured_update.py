"""Updates that are captured and replayed, with a stand-in for CUDA's graphs where there is no GPU."""

import numpy as np
import pytest
import torch
from device_option import DEVICE
from stable_baselines3.common.env_util import make_vec_env

from sb3_permakey import Rainbow, RecurrentDQN
from sb3_permakey.common.captured_update import CHANGES_TOLD, WARM_UP, CapturedUpdate, mapped, tensors_of
from sb3_permakey.common.transition_buffer import Transitions

SMALL = {"learning_starts": 20, "buffer_size": 300, "batch_size": 8, "device": DEVICE, "seed": 0}
MADE = {
    "Rainbow": lambda: Rainbow("MlpPolicy", make_vec_env("CartPole-v1", 1, seed=0), **SMALL, reset_interval=60),
    "RecurrentDQN": lambda: RecurrentDQN(
        "MlpLstmPolicy", make_vec_env("CartPole-v1", 1, seed=0), **SMALL, burn_in=2, sequence_length=4
    ),
}

pytestmark = pytest.mark.usefixtures("one_thread")


class Recorder:
    """Does again what a function did, on the tensors that it had then."""

    made = 0

    def __init__(self, function):
        Recorder.made += 1
        self.function = function

    def replay(self):
        self.result = self.function()


@pytest.mark.parametrize("name", MADE)
def test_replayed_updates_are_those_made_as_they_come(name):
    """Over a reset, after which the optimizer's state is another."""
    models = [MADE[name]().learn(40) for _ in range(2)]
    # As it would be on a GPU.
    captured = CapturedUpdate(models[1]._descend, Recorder)
    models[1]._learn_from = lambda batch: captured(batch, models[1]._settings_of(batch))
    Recorder.made = 0
    for model in models:
        np.random.seed(1)
        torch.manual_seed(1)
        model._n_updates = 50
        for _ in range(10):
            model.train(2, 8)
    assert Recorder.made == (2 if name == "Rainbow" else 1)
    for one, other in zip(models[0].policy.parameters(), models[1].policy.parameters(), strict=True):
        assert torch.equal(one, other)


def counting(made):
    seen = []
    return CapturedUpdate(lambda batch: seen.append(batch["x"].sum().item()), made), seen


def test_is_captured_after_a_warm_up_and_anew_where_the_key_or_shapes_change():
    update, seen = counting(Recorder)
    Recorder.made = 0
    for number in range(WARM_UP + 3):
        update({"x": torch.full((2,), float(number))}, key="a")
    assert (Recorder.made, seen) == (1, [2.0 * number for number in range(WARM_UP + 3)])
    update({"x": torch.ones(3)}, key="a")
    update({"x": torch.ones(3)}, key="b")
    assert Recorder.made == 1
    assert seen[-2:] == [3.0, 3.0]


def test_a_key_that_always_changes_is_told():
    update, _ = counting(Recorder)
    for number in range(CHANGES_TOLD - 1):
        update({"x": torch.ones(1)}, key=number)
    with pytest.warns(UserWarning, match="changes with every update"):
        update({"x": torch.ones(1)}, key="another")


def test_tensors_of_a_batch():
    batch = Transitions({"a": torch.ones(1), "b": torch.zeros(2)}, *(torch.ones(3),) * 4, np.arange(3))
    assert [len(tensor) for tensor in tensors_of(batch)] == [1, 2, 3, 3, 3, 3]
    doubled = mapped((batch, None), lambda tensor: 2 * tensor)[0]
    assert isinstance(doubled, Transitions)
    assert doubled.both["a"].item() == 2
    assert doubled.indices is batch.indices


def test_without_a_gpu_nothing_is_captured():
    model = Rainbow("MlpPolicy", "CartPole-v1", **SMALL, cuda_graph=True).learn(30)
    assert model._captured is None
    assert model._n_updates > 0
