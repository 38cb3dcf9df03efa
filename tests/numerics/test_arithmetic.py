"""The kinds of arithmetic: precisions by dtype, and casts."""

import numpy as np
import pytest

from gradaudit.errors import UnsupportedFunctionError
from gradaudit.numerics import PRECISIONS, Plain, Rounded, Rounding, Simulating

FLOAT32 = PRECISIONS["float32"]


def exact(value, precision=FLOAT32):
    return Rounded(np.asarray(value, np.float64), None, None, precision)


def test_plain_arithmetic_keeps_its_dtype():
    assert Plain(np.float32).array([1.0], "float64").dtype == np.float32


def test_a_uniform_arithmetic_has_one_precision_for_every_dtype():
    rounding = Rounding(uniform=FLOAT32)
    assert rounding.array(1.0, "float16").precision is FLOAT32
    assert rounding.cast(exact(1.0), "float16").variance is None


def test_tensorfloat32_rounds_the_factors_of_products():
    a = np.full((2, 8), 1.1, np.float32)
    plain = Rounding().array(a, "float32") @ Rounding().array(a.T, "float32")
    tf32 = Rounding(tensorfloat32=True)
    product = tf32.array(a, "float32") @ tf32.array(a.T, "float32")
    assert np.all(product.sigma > 500 * plain.sigma)


@pytest.mark.parametrize("arithmetic", [Rounding(), Simulating()], ids=["rounding", "simulating"])
def test_a_cast_refuses_arrays_of_another_arithmetic(arithmetic):
    with pytest.raises(TypeError, match="a ndarray was given where"):
        arithmetic.cast(np.ones(2), "float32")


@pytest.mark.parametrize("arithmetic", [Rounding(), Simulating()], ids=["rounding", "simulating"])
def test_arrays_are_not_converted_to_bare_arrays_silently(arithmetic):
    with pytest.raises(UnsupportedFunctionError, match="converted to a bare array"):
        np.asarray(arithmetic.array([1.0, 2.0], "float32"))


def test_comparisons_are_not_converted_to_bare_arrays_silently():
    with pytest.raises(UnsupportedFunctionError, match="which drops its doubt"):
        np.asarray(exact([1.0, 2.0]) > 1.5)
