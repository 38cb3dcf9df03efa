"""The chain rule where a slope is infinite."""

import numpy as np
import pytest

from gradaudit.numerics import (
    Plain,
    Rounded,
    Rounding,
    Simulating,
    chained,
    chained_through,
    divided,
    nan_for_nan,
    numbers,
)

ARITHMETICS = [Plain(np.float64), Plain(np.float32), Rounding(), Simulating()]


@pytest.mark.parametrize("arithmetic", ARITHMETICS, ids=repr)
def test_a_zero_cotangent_makes_zero_whatever_the_slope(arithmetic):
    dy = arithmetic.array([0.0, 0.0, 2.0, 0.0], "float32")
    slope = arithmetic.array([np.inf, np.nan, 3.0, 5.0], "float32")
    assert numbers(chained(dy, slope)).tolist() == [0.0, 0.0, 6.0, 0.0]


@pytest.mark.parametrize("arithmetic", ARITHMETICS, ids=repr)
def test_any_other_cotangent_meets_the_infinite_slope(arithmetic):
    dy = arithmetic.array([1.0, np.nan], "float32")
    slope = arithmetic.array([np.inf, np.inf], "float32")
    with np.errstate(invalid="ignore"):
        assert not np.isfinite(numbers(chained(dy, slope))).any()


def test_a_cotangent_that_is_zero_up_to_rounding_is_not_zero():
    third = Rounding().array(1.0, "float32") / 3.0
    dy = third + third - third * 2.0  # 0, with an error
    slope = Rounding().array(np.inf, "float32")
    with np.errstate(invalid="ignore"):
        assert np.isnan(numbers(chained(dy, slope)))


@pytest.mark.parametrize("arithmetic", ARITHMETICS, ids=repr)
def test_a_comparison_does_not_hide_nan(arithmetic):
    x = arithmetic.array([np.nan, -1.0, 2.0, np.nan], "float32")
    dy = arithmetic.array([3.0, 3.0, 3.0, 0.0], "float32")
    y = nan_for_nan(x, np.where(x > 0, x, 0.0))
    assert np.isnan(numbers(y)).tolist() == [True, False, False, True]
    dx = chained_through(x, dy, np.where(x > 0, dy, 0.0))
    assert np.isnan(numbers(dx)).tolist() == [True, False, False, False]
    assert numbers(dx)[1:].tolist() == [0.0, 3.0, 0.0]


def test_a_slope_whose_rounding_error_is_not_finite_is_not_finite():
    arithmetic = Rounding()
    one, zero = arithmetic.array([1.0], "float32"), arithmetic.array([0.0], "float32")
    slope = Rounded(one.value, np.array([np.inf]), None, one.precision)
    for product in (chained(zero, slope), divided(zero, slope)):
        assert product.value == 0
        assert product.sigma == 0


@pytest.mark.parametrize("arithmetic", ARITHMETICS, ids=repr)
def test_a_quotient_is_zero_where_its_numerator_is(arithmetic):
    dy = arithmetic.array([0.0, 0.0, 3.0, 0.0], "float32")
    by = arithmetic.array([0.0, np.nan, 2.0, 5.0], "float32")
    assert numbers(divided(dy, by)).tolist() == [0.0, 0.0, 1.5, 0.0]
    with np.errstate(divide="ignore", invalid="ignore"):
        assert np.isinf(numbers(divided(arithmetic.array(1.0, "float32"), by[0])))
