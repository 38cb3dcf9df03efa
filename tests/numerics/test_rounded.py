"""The rounding model: σ of `Rounded` against the errors of float32 arithmetic, casts, refusals."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from gradaudit.errors import UnsupportedFunctionError
from gradaudit.numerics import PRECISIONS, Rounded, Rounding

FLOAT32, FLOAT16 = PRECISIONS["float32"], PRECISIONS["float16"]


def exact(value, precision=FLOAT32):
    return Rounded(np.asarray(value, np.float64), None, None, precision)


def allowed(rounded):
    """Return 4 σ and what other branches could change."""
    total = 4 * rounded.sigma + (0.0 if rounded.kink is None else rounded.kink)
    return np.where(np.isnan(total), np.inf, total)  # 0 times an overflow: anything


EXPRESSIONS = {
    "a + b": lambda a, b: a + b,
    "a - b": lambda a, b: a - b,
    "a b": lambda a, b: a * b,
    "a / b": lambda a, b: a / (b + 5.0),
    "0.1 a": lambda a, b: 0.1 * a - b * 0.3,
    "a @ b": lambda a, b: a @ b.T,
    "mean": lambda a, b: (a * b).mean(axis=0) + (a - b).sum(axis=1, keepdims=True),
    "chain": lambda a, b: np.tanh(a @ b.T) @ special.expit(a - b),
    "softmax": lambda a, b: (
        np.exp(a - a.max(axis=-1, keepdims=True)) / np.exp(a - b).sum(axis=-1, keepdims=True)
    ),
    "relu": lambda a, b: np.where(a - b > 0, a * b, 0.0),
    "clip": lambda a, b: np.clip(a * b, -0.5, 0.5),
    "maximum": lambda a, b: np.maximum(a * b, a - b),
    "powers": lambda a, b: np.power(np.abs(a) + 1.0, 3) + np.square(b) - np.sqrt(np.abs(a) + 1.0),
    "logs": lambda a, b: np.log(np.abs(a) + 0.1) + np.log1p(np.abs(b)) + np.expm1(a),
    "erf": lambda a, b: special.erf(a) * b,
    "moves": lambda a, b: np.concatenate([a.reshape(-1), np.transpose(b).reshape(-1)]) * 3.3,
    "cumsum": lambda a, b: np.cumsum(a * b, -1) - np.sort(a, -1),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-3, 1.0, 30.0]))
def test_float32_arithmetic_stays_within_4_sigma(name, seed, scale):
    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal((5, 5)).astype(np.float32) * np.float32(scale) for _ in range(2))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        single = EXPRESSIONS[name](a, b)
        ours = EXPRESSIONS[name](exact(a), exact(b))
        double = EXPRESSIONS[name](a.astype(np.float64), b.astype(np.float64))
    np.testing.assert_array_equal(ours.value, double)
    assert single.dtype == np.float32
    finite = np.isfinite(single) & np.isfinite(double)
    error = np.abs(single - ours.value)[finite]
    assert np.all(error <= allowed(ours)[finite])


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_sigma_is_not_far_above_the_errors(name):
    rng = np.random.default_rng(1)
    ratios = []
    for _ in range(40):
        a, b = (rng.standard_normal((5, 5)).astype(np.float32) for _ in range(2))
        ours = EXPRESSIONS[name](exact(a), exact(b))
        smooth = ours.sigma > 0 if ours.kink is None else (ours.sigma > 0) & (ours.kink == 0)
        ratios.append(((EXPRESSIONS[name](a, b) - ours.value) / ours.sigma.clip(1e-300))[smooth])
    # Rounding errors of correct code are at least a twentieth of σ, or σ would hide faults.
    assert np.sqrt(np.mean(np.concatenate(ratios) ** 2)) > 0.05


def test_one_rounding_has_the_variance_of_a_uniform_error():
    half_unit = 2.0**-24
    one = exact(1.0) + exact(0.5)
    assert one.sigma == pytest.approx(half_unit / np.sqrt(3), rel=1e-12)
    two = exact(3.0) + exact(1.5)  # 4.5: its binade begins at 4
    assert two.sigma == pytest.approx(4 * half_unit / np.sqrt(3), rel=1e-12)


def test_the_error_of_a_constant_is_what_its_precision_loses():
    held = Rounding().array(0.1, "float32")
    assert held.sigma == abs(0.1 - float(np.float32(0.1)))
    assert Rounding().array(0.5, "float32").variance is None
    array = Rounding().array([0.5, 0.1], "float16")
    np.testing.assert_allclose(array.sigma, [0, abs(0.1 - float(np.float16(0.1)))], rtol=1e-12)


def test_casts_round_once_and_only_to_a_narrower_precision():
    a = exact([1.0, 3.0], FLOAT16)
    assert a.cast(FLOAT32).variance is None
    assert a.cast(FLOAT32).precision is FLOAT32
    computed = Rounded([1.0, 3.0], np.full(2, 1e-30), None, FLOAT32).cast(FLOAT16)
    np.testing.assert_allclose(computed.sigma, np.array([1, 2]) * 2.0**-11, rtol=1e-6)


def test_a_cast_of_an_exact_array_to_a_narrower_precision_is_exact():
    held = exact([0.1, 65000.0, 1e5]).cast(FLOAT16)
    assert held.value[:2].tolist() == [float(np.float16(0.1)), float(np.float16(65000))]
    assert held.variance is None
    assert held.kink.tolist() == [0, 0, np.inf]


def test_overflow_of_the_audited_precision_is_a_kink():
    y = exact([300.0, 1.0], FLOAT16) * exact([300.0, 1.0], FLOAT16)
    assert y.kink.tolist() == [np.inf, 0]


REFUSED = {
    "unknown function": lambda a: np.linalg.norm(a),
    "unknown ufunc": lambda a: np.cbrt(a),
    "unknown reduction": lambda a: np.multiply.reduce(a),
    "in place": lambda a: a.__iadd__(1.0),
    "into an array": lambda a: np.add(np.ones(3), a, out=np.empty(3)),
    "as an array": lambda a: np.asarray(a),
    "as a float": lambda a: float(a[0]),
    "as a truth value": lambda a: bool(a[0]),
    "comparison as a truth value": lambda a: bool(a[0] > 0),
    "comparison elsewhere": lambda a: np.sum(a > 0),
    "two precisions": lambda a: a + exact([1.0, 1.0, 1.0], FLOAT16),
}


@pytest.mark.parametrize("case", REFUSED)
def test_functions_without_a_rounding_rule_are_refused(case):
    with pytest.raises((UnsupportedFunctionError, TypeError)) as caught:
        REFUSED[case](exact([1.0, 2.0, 3.0]))
    if case != "as a float":
        assert isinstance(caught.value, UnsupportedFunctionError)
        assert any(word in str(caught.value) for word in ("rite", "se", "hoose"))
