import pytest

from sb3_permakey.common.annealing import Annealing, annealed_discount, annealed_steps, most_steps


def test_annealing_is_exponential_and_stays():
    annealing = Annealing(8.0, 2.0, 100)
    assert [annealing.value(updates) for updates in (0, 50, 100, 500)] == pytest.approx([8, 4, 2, 2])


def test_n_is_rounded():
    # 10 (3 / 10)^(1/4) = 7.4, 10 (3 / 10)^(1/2) = 5.48.
    assert [annealed_steps((10, 3, 10_000), updates) for updates in (0, 2500, 5000, 10_000, 10**6)] == [10, 7, 5, 3, 3]
    assert annealed_steps(4, 123) == 4
    assert (most_steps([3, 10, 50]), most_steps(4)) == (10, 4)


def test_discount_moves_by_its_distance_from_1():
    found = [annealed_discount((0.97, 0.997, 10_000), updates) for updates in (0, 5000, 10_000, 20_000)]
    # 1 - .03 sqrt(.1)
    assert found == pytest.approx([0.97, 1 - 0.03 * 0.1**0.5, 0.997, 0.997])
    assert annealed_discount(0.99, 77) == 0.99


@pytest.mark.parametrize("wrong", [(0, 3, 10), (10, -1, 10), (10, 3, 0)])
def test_wrong_annealing(wrong):
    with pytest.raises(ValueError, match="positive"):
        Annealing(*wrong)
