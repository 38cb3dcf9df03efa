"""Elementwise rules: the table of elementary functions against TensorFlow's kernels, and powers."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import special

from gradaudit.numerics import PRECISIONS, Rounded
from gradaudit.numerics.elementary import ELEMENTARY

FLOAT32 = PRECISIONS["float32"]


def exact(value, precision=FLOAT32):
    return Rounded(np.asarray(value, np.float64), None, None, precision)


def test_products_by_powers_of_two_are_exact():
    assert (0.5 * exact(0.3)).variance is None
    assert (exact(0.3) / 4).variance is None
    assert (0.3 * exact(0.3)).variance is not None


TENSORFLOW = {
    np.exp: tf.exp,
    np.expm1: tf.math.expm1,
    np.log: tf.math.log,
    np.log1p: tf.math.log1p,
    np.sqrt: tf.sqrt,
    np.square: tf.square,
    np.tanh: tf.tanh,
    special.erf: tf.math.erf,
    special.erfc: tf.math.erfc,
    special.expit: tf.sigmoid,
    np.sin: tf.sin,
    np.cos: tf.cos,
    np.tan: tf.tan,
    np.arcsin: tf.asin,
    np.arccos: tf.acos,
    np.arctan: tf.atan,
    np.sinh: tf.sinh,
    np.cosh: tf.cosh,
    np.arcsinh: tf.asinh,
    np.arccosh: tf.acosh,
    np.arctanh: tf.atanh,
}


RANGES = {
    np.tan: (0.0, 1.5),
    np.arcsin: (0.0, 0.999),
    np.arccos: (0.0, 0.999),
    np.arccosh: (1.001, 5.0),
    np.arctanh: (0.0, 0.999),
}


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("ufunc", ELEMENTARY, ids=lambda ufunc: ufunc.__name__)
def test_tensorflow_s_kernels_are_as_accurate_as_the_table_says(ufunc, jit):
    low, high = RANGES.get(ufunc, (0.0, 5.0))
    x = np.concatenate([np.geomspace(1e-6, 5, 20_001), np.linspace(0.5, 2, 20_001)])
    x = x[(x > low) & (x < high)].astype(np.float32)
    right = ufunc(x.astype(np.float64))
    half_unit = 2.0**-24 * 2.0 ** np.floor(np.log2(np.abs(right) + (right == 0)))
    theirs = np.asarray(tf.function(TENSORFLOW[ufunc], jit_compile=jit)(x), np.float64)
    accuracy = ELEMENTARY[ufunc].accuracy(x.astype(np.float64)) * (1 + 1e-6)
    assert (np.abs(theirs - right) / half_unit <= accuracy).all()


@pytest.mark.parametrize("ufunc", ELEMENTARY, ids=lambda ufunc: ufunc.__name__)
def test_derivatives_of_elementary_functions(ufunc):
    low, high = RANGES.get(ufunc, (0.2, 2.0))
    x, h = np.linspace(max(low, 0.2), min(high, 2.0), 9)[1:-1], 1e-6
    slope = (ufunc(x + h) - ufunc(x - h)) / (2 * h)
    np.testing.assert_allclose(ELEMENTARY[ufunc].derivative(x, ufunc(x)), slope, rtol=1e-8)


def test_sigma_of_an_inverse_root_is_that_of_tensorflow_s_rsqrt():
    x = np.geomspace(1e-3, 1e3, 10_001).astype(np.float32)
    ours = np.power(exact(x.astype(np.float64)), -0.5)
    theirs = np.asarray(tf.function(lambda x: 1.5 * tf.ones_like(x) / tf.sqrt(x))(x), np.float64)
    z = np.abs(theirs / 1.5 - ours.value) / ours.sigma
    assert 1 < np.max(z) < 4 or np.max(z) < 1.8  # not every processor approximates
    assert np.all(ours.sigma > 3 * np.sqrt(exact(x.astype(np.float64))).sigma / x)


def test_the_error_of_a_power_is_finite_where_its_limit_is():
    base = Rounded(np.array([0.0, 0.0, -2.0, 2.0]), np.full(4, 1e-8), None, FLOAT32)
    exponent = Rounded(np.array([3.0, 0.0, 2.0, 2.0]), np.full(4, 1e-8), np.full(4, 1e-3), FLOAT32)
    with np.errstate(divide="ignore", invalid="ignore"):
        power, exact_exponent = base**exponent, base ** exact([3.0, 0.0, 2.0, 2.0])
    assert power.value.tolist() == [0.0, 1.0, 4.0, 4.0]
    assert np.isfinite(exact_exponent.sigma).all()
    assert power.sigma[0] == 0.0  # a³ and a³ log a are 0 at 0
    assert np.isinf(power.sigma[1])  # 0⁰
    assert power.sigma[3] == pytest.approx(1e-4 * np.hypot(4, 4 * np.log(2)), rel=1e-3)
    assert power.kink[[0, 2, 3]] == pytest.approx([0, 0, 1e-3 * 4 * np.log(2)])
