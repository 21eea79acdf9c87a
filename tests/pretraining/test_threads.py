import pytest
import torch

from sb3_permakey.pretraining.threads import AGAIN_AFTER_S, StepThreads, _default_numbers, threads_are_free

pytestmark = pytest.mark.usefixtures("keep_threads")
CPU = torch.device("cpu")


class Machine:
    """Steps that last as long as the number of threads says, by a clock of its own."""

    def __init__(self, most, seconds, *, free=True):
        torch.set_num_threads(most)
        self.seconds, self.now, self.said = seconds, 0.0, []
        self.threads = StepThreads(self.said.append, free=free, clock=lambda: self.now)

    def steps(self, count):
        numbers = []
        for _ in range(count):
            with self.threads.step():
                numbers.append(torch.get_num_threads())
                self.now += self.seconds[torch.get_num_threads()]
        return numbers


@pytest.mark.parametrize(
    ("most", "seconds", "chosen"),
    [
        (4, {4: 1.0, 2: 2.0, 1: 4.0}, 4),
        (4, {4: 1.7, 2: 0.9, 1: 0.4}, 1),
        (4, {4: 0.7, 2: 0.6, 1: 1.0}, 2),
        (4, {4: 0.1, 2: 0.95, 1: 1.0}, 1),  # twice as many are not a tenth faster
        (3, {3: 1.0, 2: 2.0, 1: 4.0}, 3),
    ],
)
def test_the_fastest_number_is_taken(most, seconds, chosen):
    machine = Machine(most, seconds)
    machine.threads.begin("PointNet")
    assert machine.steps(20)[-1] == chosen
    assert machine.said[0].startswith(f"PointNet: {chosen} of {most} threads (a step takes ")
    assert len(machine.said) == 1


def test_a_number_is_timed_after_a_step_that_gets_used_to_it_and_given_up_where_it_is_hopeless():
    machine = Machine(2, {1: 0.4, 2: 0.7})
    machine.threads.begin("PointNet")
    assert machine.steps(10) == [1] * 4 + [2] * 4 + [1] * 2
    assert machine.said == ["PointNet: 1 of 2 threads (a step takes 0.40 s on 1, 0.70 s on 2)"]
    machine = Machine(2, {1: 0.4, 2: 16.0})
    machine.threads.begin("PointNet")
    assert machine.steps(10) == [1] * 4 + [2] + [1] * 5


def test_the_choice_is_looked_at_again_and_said_where_it_changes():
    machine = Machine(2, {1: 0.4, 2: 0.7})
    machine.threads.begin("PointNet")
    machine.steps(10)
    machine.seconds = {1: 0.6, 2: 0.3}
    machine.now += AGAIN_AFTER_S
    assert machine.steps(12) == [1] * 5 + [2] * 7
    machine.now += AGAIN_AFTER_S
    assert set(machine.steps(12)) == {1, 2}
    assert torch.get_num_threads() == 2
    assert len(machine.said) == 2
    assert "2 of 2 threads" in machine.said[1]


def test_looking_takes_a_twentieth_of_the_time_at_most():
    machine = Machine(2, {1: 0.4, 2: 160.0})
    machine.threads.begin("PointNet")
    assert machine.steps(5).count(2) == 1
    ended = machine.now
    assert machine.steps(7000).count(2) == 0
    assert 2700 < machine.now - ended < 2900
    assert machine.steps(1500).count(2) == 1


def test_other_steps_are_looked_at_at_once_and_the_first_number_comes_back():
    machine = Machine(2, {1: 0.5, 2: 0.2})
    machine.threads.begin("VAE")
    assert machine.steps(10) == [1] * 4 + [2] * 6
    machine.threads.begin("PointNet")
    assert machine.steps(9) == [2] * 4 + [1] * 1 + [2] * 4
    assert [line.split(":")[0] for line in machine.said] == ["VAE", "PointNet"]
    machine.steps(1)
    machine.threads.release()
    assert torch.get_num_threads() == 2


def test_a_number_that_others_set_stays():
    machine = Machine(2, {2: 1.7, 1: 0.4}, free=False)
    machine.threads.begin("PointNet")
    assert set(machine.steps(20)) == {2}
    assert machine.said == []


@pytest.mark.parametrize("variable", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_whose_number_it_is(monkeypatch, variable):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    default = max(_default_numbers())
    torch.set_num_threads(default)
    assert threads_are_free(CPU, 1)
    assert not threads_are_free(CPU, 2)
    assert not threads_are_free(torch.device("cuda"), 1)
    torch.set_num_threads(default + 1)
    assert not threads_are_free(CPU, 1)
    torch.set_num_threads(default)
    monkeypatch.setenv(variable, str(default))
    assert not threads_are_free(CPU, 1)
