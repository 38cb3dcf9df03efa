import re

import numpy as np
import pytest

from gradaudit.scoring import diagnose

RIGHT = np.random.default_rng(0).standard_normal((4, 4))


def changed(index, factor):
    wrong = RIGHT.copy()
    wrong[index] *= factor
    return wrong


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (-RIGHT, "wrong sign"),
        (2 * RIGHT, "twice too large"),
        (RIGHT / 2, "half of what it should be"),
        (-2 * RIGHT, "wrong sign, and twice too large"),
        (RIGHT / np.log(2), "to base 2 for a natural one"),
        (RIGHT * np.log(2), "a natural logarithm for one to base 2"),
        (RIGHT / np.log(10), "to base 10 for a natural one"),
        (RIGHT * np.log(10), "a natural logarithm for one to base 10"),
        (32 * RIGHT, "32 times too large: a sum"),
        (RIGHT / 32, "32 times too small: a mean"),
        (3.7 * RIGHT, "a factor 3.7 throughout"),
        (1.0001 * RIGHT, "relative 0.0001 throughout"),
        (RIGHT.T, "transposed"),
        (RIGHT[::-1], "another order"),
        (0 * RIGHT, "no gradient arrives"),
        (changed((1, 2), 1.0001), r"1 of 16 values differ, \[1, 2\] by a relative 0.0001"),
        (RIGHT + np.diag([np.nan, 0, 0, 0]), "tape is not finite in 1 places"),
        (RIGHT**2, "no constant factor, sign, permutation or single weight explains it"),
    ],
)
def test_the_simplest_relation_is_named(wrong, words):
    failed = ~np.isclose(wrong, RIGHT, rtol=1e-6)
    with np.errstate(invalid="ignore"):
        assert re.search(words, diagnose(wrong, RIGHT, failed, 32))


def test_a_gradient_where_none_belongs():
    assert "does not depend" in diagnose(RIGHT, 0 * RIGHT, RIGHT != 0, 32)
