from pathlib import Path

import pytest

from sb3_permakey.settings import (
    require_at_least,
    require_choice,
    require_one,
    require_positive,
    require_range,
    require_seed,
    require_suffix,
)

NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("check", "good", "bad", "sentence"),
    [
        (lambda value: require_at_least(1, frames=value), (1, 10**9, None), (0, -4), "frames must be at least 1, not "),
        (lambda value: require_at_least(0, weight=value), (0.0, 2.5), (-0.1, NAN, INFINITE), "weight must be at least"),
        (lambda value: require_positive(rate=value), (1e-9, None), (0, -1, NAN, INFINITE), "rate must be positive"),
        (lambda value: require_range(0, 1, epsilon=value), (0, 0.5, 1, None), (-0.1, 1.1, NAN), "epsilon must be from"),
        (require_seed, (0, 2**31 - 1), (-1, 2**31), "seed must be from 0 to 2147483647, not"),
        (lambda value: require_choice(("a", "b"), kind=value), ("a", None), ("c", ""), "kind must be one of a, b"),
        (
            lambda value: require_suffix(".png", out=value),
            (Path("x.png"), Path("x.PNG"), None),
            (Path("k.foo"), Path("png")),
            "out must name a .png file, not ",
        ),
    ],
)
def test_what_is_outside_is_told_in_a_sentence(check, good, bad, sentence):
    for value in good:
        check(value)
    for value in bad:
        with pytest.raises(ValueError, match=sentence) as refusal:
            check(value)
        assert str(value) in str(refusal.value)


def test_exactly_one_of_several():
    require_one(game=None, env="")
    with pytest.raises(ValueError, match="give one of game, env, not none"):
        require_one(game=None, env=None)
    with pytest.raises(ValueError, match="give one of a, b, c, not a and c"):
        require_one(a=1, b=None, c=0)
