"""Comparisons, and what chooses by them: where rounding could turn the choice is a kink."""

import numpy as np
import pytest

from gradaudit.numerics import PRECISIONS, Decision, Rounded

FLOAT32 = PRECISIONS["float32"]


def exact(value, precision=FLOAT32):
    return Rounded(np.asarray(value, np.float64), None, None, precision)


def test_a_doubtful_comparison_makes_the_other_branch_a_kink():
    z = Rounded([0.0, 1e-8, 1.0], np.full(3, 1e-14), None, FLOAT32)
    decision = z > 0
    assert decision.doubtful.tolist() == [True, True, False]
    chosen = np.where(decision, exact([2.0, 2.0, 2.0]), exact([5.0, 5.0, 5.0]))
    assert chosen.value.tolist() == [5, 2, 2]
    assert chosen.kink.tolist() == [3, 3, 0]


def test_an_exact_tie_is_not_doubtful():
    decision = exact([0.0, -0.0]) > 0
    assert not decision.doubtful.any()


def test_doubt_is_void_where_the_other_condition_is_surely_false():
    doubtful = Decision(np.array([True, True]), np.array([True, True]), FLOAT32)
    assert (doubtful & np.array([False, True])).doubtful.tolist() == [False, True]
    assert (doubtful | np.array([False, True])).doubtful.tolist() == [True, False]


@pytest.mark.parametrize("choose", [np.maximum, np.minimum])
def test_maximum_and_minimum_propagate_nan(choose):
    assert np.isnan(choose(exact([np.nan]), 1.0).value).all()
    assert np.isnan(choose(1.0, exact([np.nan])).value).all()
