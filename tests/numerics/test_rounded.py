import warnings

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from gradaudit.errors import UnsupportedFunctionError
from gradaudit.numerics import PRECISIONS, Decision, Plain, Rounded, Rounding, Simulating
from gradaudit.numerics.elementary import ELEMENTARY
from gradaudit.reference.derive import _kappa

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


def test_products_by_powers_of_two_are_exact():
    assert (0.5 * exact(0.3)).variance is None
    assert (exact(0.3) / 4).variance is None
    assert (0.3 * exact(0.3)).variance is not None


def test_a_constant_is_off_by_what_its_precision_loses():
    held = Rounding().array(0.1, "float32")
    assert held.sigma == abs(0.1 - float(np.float32(0.1)))
    assert Rounding().array(0.5, "float32").variance is None
    array = Rounding().array([0.5, 0.1], "float16")
    np.testing.assert_allclose(array.sigma, [0, abs(0.1 - float(np.float16(0.1)))], rtol=1e-12)


def test_casts_round_once_and_only_downwards():
    a = exact([1.0, 3.0], FLOAT16)
    assert a.cast(FLOAT32).variance is None
    assert a.cast(FLOAT32).precision is FLOAT32
    computed = Rounded([1.0, 3.0], np.full(2, 1e-30), None, FLOAT32).cast(FLOAT16)
    np.testing.assert_allclose(computed.sigma, np.array([1, 2]) * 2.0**-11, rtol=1e-6)


def test_an_exact_array_becomes_what_the_narrower_precision_holds():
    held = exact([0.1, 65000.0, 1e5]).cast(FLOAT16)
    assert held.value[:2].tolist() == [float(np.float16(0.1)), float(np.float16(65000))]
    assert held.variance is None
    assert held.kink.tolist() == [0, 0, np.inf]


def test_overflow_of_the_audited_precision_is_a_kink():
    y = exact([300.0, 1.0], FLOAT16) * exact([300.0, 1.0], FLOAT16)
    assert y.kink.tolist() == [np.inf, 0]


def test_a_float16_sum_that_stands_still_is_a_kink():
    n = 100_000
    assert np.sum(exact(np.ones(n), FLOAT16)).kink > 0
    assert np.sum(exact(np.ones(n), FLOAT32)).kink is None


def test_a_doubtful_comparison_leaves_the_other_branch_as_a_kink():
    z = Rounded([0.0, 1e-8, 1.0], np.full(3, 1e-14), None, FLOAT32)
    decision = z > 0
    assert decision.doubtful.tolist() == [True, True, False]
    chosen = np.where(decision, exact([2.0, 2.0, 2.0]), exact([5.0, 5.0, 5.0]))
    assert chosen.value.tolist() == [5, 2, 2]
    assert chosen.kink.tolist() == [3, 3, 0]


def test_an_exact_tie_is_not_doubtful():
    decision = exact([0.0, -0.0]) > 0
    assert not decision.doubtful.any()


def test_doubt_does_not_matter_beside_a_sure_false():
    doubtful = Decision(np.array([True, True]), np.array([True, True]), FLOAT32)
    assert (doubtful & np.array([False, True])).doubtful.tolist() == [False, True]
    assert (doubtful | np.array([False, True])).doubtful.tolist() == [True, False]


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
def test_tensorflow_s_functions_are_as_accurate_as_the_table_says(ufunc, jit):
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
def test_what_has_no_rounding_rule_is_refused(case):
    with pytest.raises((UnsupportedFunctionError, TypeError)) as caught:
        REFUSED[case](exact([1.0, 2.0, 3.0]))
    if case != "as a float":
        assert isinstance(caught.value, UnsupportedFunctionError)
        assert any(word in str(caught.value) for word in ("rite", "se", "hoose"))


def test_plain_arithmetic_keeps_its_dtype():
    assert Plain(np.float32).array([1.0], "float64").dtype == np.float32


def test_kappa_s_arithmetic_is_float32_whatever_the_dtype():
    rounding = Rounding(uniform=FLOAT32)
    assert rounding.array(1.0, "float16").precision is FLOAT32
    assert rounding.cast(exact(1.0), "float16").variance is None


def test_tensorfloat32_rounds_the_factors_of_products():
    a = np.full((2, 8), 1.1, np.float32)
    plain = Rounding().array(a, "float32") @ Rounding().array(a.T, "float32")
    tf32 = Rounding(tensorfloat32=True)
    product = tf32.array(a, "float32") @ tf32.array(a.T, "float32")
    assert np.all(product.sigma > 500 * plain.sigma)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_simulated_arithmetic_is_that_of_the_half_precision(dtype):
    theirs = np.float16 if dtype == "float16" else ml_dtypes.bfloat16
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(500).astype(theirs) for _ in range(2))
    ours = [Simulating().array(value.astype(np.float64), dtype) for value in (a, b)]
    for f in (
        lambda a, b: a + b,
        lambda a, b: a * b,
        lambda a, b: a / b,
        lambda a, b: np.sqrt(a * a),
    ):
        np.testing.assert_array_equal(f(*ours).value, f(a, b).astype(np.float64))
    np.testing.assert_array_equal(
        np.where(ours[0] > ours[1], ours[0], 0.0).value, np.where(a > b, a, 0)
    )
    single = Simulating().cast(ours[0], "float32")
    assert single.precision is FLOAT32
    with pytest.raises(UnsupportedFunctionError, match="met in one operation"):
        single + ours[0]


def test_simulated_float16_overflows():
    assert (Simulating().array([300.0, -300.0], "float16") * 300.0).value.tolist() == [
        np.inf,
        -np.inf,
    ]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_simulated_logistic_function_is_tensorflow_s(dtype):
    theirs = np.float16 if dtype == "float16" else ml_dtypes.bfloat16
    z = np.linspace(-8, 15, 4001).astype(theirs)
    with np.errstate(all="ignore"):
        ours = special.expit(Simulating().array(z.astype(np.float64), dtype)).value
    kernel = np.asarray(tf.sigmoid(z), np.float64)
    assert np.mean(ours == kernel) > 0.9
    np.testing.assert_allclose(ours, kernel, rtol=2 * float(ml_dtypes.finfo(theirs).eps))


@pytest.mark.parametrize("choose", [np.maximum, np.minimum])
def test_what_is_not_a_number_wins_a_choice(choose):
    assert np.isnan(choose(exact([np.nan]), 1.0).value).all()
    assert np.isnan(choose(1.0, exact([np.nan])).value).all()


def test_an_inverse_root_is_as_inexact_as_tensorflow_s():
    x = np.geomspace(1e-3, 1e3, 10_001).astype(np.float32)
    ours = np.power(exact(x.astype(np.float64)), -0.5)
    theirs = np.asarray(tf.function(lambda x: 1.5 * tf.ones_like(x) / tf.sqrt(x))(x), np.float64)
    z = np.abs(theirs / 1.5 - ours.value) / ours.sigma
    assert 1 < np.max(z) < 4 or np.max(z) < 1.8  # not every processor approximates
    assert np.all(ours.sigma > 3 * np.sqrt(exact(x.astype(np.float64))).sigma / x)


def one_by_one(terms):
    """Return the float32 sum over the first axis, term by term."""
    return np.cumsum(terms, axis=0, dtype=np.float32)[-1]


def batch(kind, n, rng):
    """Return A (4, n) and B (n, 4) in float32, whose products and rows are summed over n."""
    rows = rng.integers(0, 4, n) if "repeated" in kind else np.arange(n)
    a, b = rng.standard_normal((4, n))[:, rows], rng.standard_normal((n, 4))[rows]
    if "sorted" in kind:
        a, b = np.abs(a), np.sort(b, axis=0)
    return a.astype(np.float32), b.astype(np.float32)


SUMMED = {
    "A B one by one": lambda a, b: one_by_one(a.T[:, :, None] * b[:, None, :]),
    "A B by TensorFlow": tf.matmul,
    "Σ rows one by one": lambda a, b: one_by_one(b),
    "Σ rows by TensorFlow": lambda a, b: tf.reduce_sum(b, 0),
    "Σ rows by XLA": tf.function(lambda a, b: tf.reduce_sum(b, 0), jit_compile=True),
}


@pytest.mark.parametrize("kind", ["distinct", "repeated", "sorted", "repeated and sorted"])
@pytest.mark.parametrize("name", SUMMED)
def test_sums_of_equal_terms_and_of_terms_in_order(name, kind):
    rng, z = np.random.default_rng(0), []
    for n in (16, 64, 256, 1024, 1024):
        a, b = batch(kind, n, rng)
        ours = exact(a) @ exact(b) if "A B" in name else np.sum(exact(b), axis=0)
        theirs = np.asarray(SUMMED[name](a, b), np.float64)
        z.append((np.abs(theirs - ours.value) / ours.sigma).ravel())
    assert np.max(np.concatenate(z)) < 4
    if "one by one" in name:  # σ is that of the worst order of summation
        assert np.sqrt(np.mean(np.concatenate(z) ** 2)) > 0.25


@pytest.mark.parametrize("n", [8, 100, 2000])
def test_sigma_of_distinct_terms_in_no_order_is_a_random_walk_s_or_their_own_walk_s(n):
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((8, n), (n, 50)))
    y, squares = exact(a) @ exact(b), exact(a).value ** 2 @ exact(b).value ** 2
    walk = n * y.value**2 / 9 + (n / 18 + 1 / 3) * squares
    own = np.sum(np.cumsum(a[:, :, None].astype(np.float64) * b, axis=1) ** 2, axis=1) / 3
    once = (exact(y.value) + 0.0).variance
    ratio = y.sigma**2 / (2.0**-48 * walk + once)
    assert np.min(ratio) >= 1 - 1e-9
    assert np.sqrt(np.mean(ratio)) < (1.001 if n < 16 else 1.25)
    if n > 16:  # no less than the walk of the terms in their order, found at a few places of it
        assert np.min(y.sigma**2 / (2.0**-48 * own + once)) > 0.5


def in_turn(accumulators):
    """Return a product whose terms take turns between accumulators in float32."""

    def product(a, b):
        parts = [
            one_by_one((a.T[:, :, None] * b[:, None, :])[i::accumulators])
            for i in range(accumulators)
        ]
        return sum(parts[1:], parts[0])

    return product


def begun_again(a, b):
    """Return a product in float32 whose second half of terms is summed from 0."""
    terms, half = a.T[:, :, None] * b[:, None, :], a.shape[1] // 2
    return one_by_one(terms[:half]) + one_by_one(terms[half:])


@pytest.mark.parametrize("n", [18, 72, 320])
@pytest.mark.parametrize(
    "product",
    [in_turn(1), in_turn(2), in_turn(4), tf.matmul, tf.function(tf.matmul, jit_compile=True)],
    ids=["one by one", "two in turn", "four in turn", "TensorFlow", "XLA"],
)
def test_no_element_of_many_is_far_off_for_the_order_of_its_own_terms(product, n):
    rng, z = np.random.default_rng(n), []
    for _ in range(4):  # 40,000 elements: 4.6 σ of independent normal errors
        a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((320, n), (n, 32)))
        ours = exact(a) @ exact(b)
        z.append(np.abs(np.asarray(product(a, b), np.float64) - ours.value) / ours.sigma)
    assert np.max(z) < 4.5
    assert np.sqrt(np.mean(np.square(z))) > 0.35


def test_a_long_product_may_be_begun_again_half_way():
    rng, z = np.random.default_rng(0), []
    for _ in range(3):
        a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((160, 576), (576, 64)))
        ours = exact(a) @ exact(b)
        z.append(np.abs(begun_again(a, b) - ours.value) / ours.sigma)
    assert np.max(z) < 4.5


@pytest.mark.parametrize("n", [18, 72, 576])
def test_no_sum_of_many_is_far_off_for_the_order_of_its_own_terms(n):
    terms = np.random.default_rng(n).standard_normal((n, 10_000)).astype(np.float32)
    ours = np.sum(exact(terms), axis=0)
    assert np.max(np.abs(one_by_one(terms) - ours.value) / ours.sigma) < 4.5


@pytest.mark.parametrize("shapes", [((70_000, 18), (18, 2)), ((3, 50, 40), (40, 60))])
def test_products_that_are_summed_in_parts_are_whole(shapes):
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape) for shape in shapes)
    y = exact(a) @ exact(b)
    np.testing.assert_allclose(y.value, a @ b, rtol=1e-12, atol=1e-12)
    last = exact(a[-1:]) @ exact(b)
    np.testing.assert_allclose(y.sigma[-1:], last.sigma, rtol=1e-6)


def test_equal_factors_do_not_make_equal_products():
    rng = np.random.default_rng(0)
    binary, b = rng.integers(0, 2, (1, 1000)), rng.standard_normal((1000, 1))
    distinct = np.where(binary, 1 + 1e-3 * rng.random((1, 1000)), 0)
    sigmas = [(exact(a) @ exact(b)).sigma for a in (binary, distinct)]
    np.testing.assert_allclose(*sigmas, rtol=0.01)


def test_zeros_are_not_taken_for_equal_terms():
    rng = np.random.default_rng(0)
    terms = np.where(rng.random(1000) < 0.9, 0, rng.standard_normal(1000))
    y = np.sum(exact(terms))
    walk = 1000 * (y.value**2 / 9 + np.sum(terms**2) / 18)
    own = np.sum(np.cumsum(terms) ** 2) / 3
    assert y.sigma == pytest.approx(np.sqrt(2.0**-48 * max(walk, own)), rel=0.1)


def test_equal_terms_bring_equal_errors():
    terms = Rounded(np.full(50, 0.1), np.full(50, 1e-8), None, FLOAT32)
    assert np.sum(terms).sigma == pytest.approx(50 * 1e-4, rel=1e-3)
    assert (terms @ exact(np.ones(50))).sigma == pytest.approx(50 * 1e-4, rel=1e-3)


@pytest.mark.parametrize("shapes", [((50,), (50, 2)), ((3, 50), (50,)), ((2, 3, 50), (2, 50, 4))])
@pytest.mark.parametrize("repeated", [False, True])
def test_products_of_vectors_and_of_stacks_of_matrices(shapes, repeated):
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape) for shape in shapes)
    if repeated:
        a, b = np.full(a.shape, 0.1), np.full(b.shape, 0.3)
    y = exact(a) @ exact(b)
    assert y.shape == y.sigma.shape == (a @ b).shape
    last = exact(a[-1] if a.ndim > 1 else a) @ exact(b[-1] if b.ndim > 2 else b)
    np.testing.assert_allclose(y.sigma[-1] if a.ndim > 1 else y.sigma, last.sigma, rtol=1e-6)


def bias_add_grad(terms, dtype, jit):
    function = tf.function(lambda dy: tf.raw_ops.BiasAddGrad(out_backprop=dy), jit_compile=jit)
    return np.asarray(function(tf.constant(terms, dtype)), np.float64)


@pytest.mark.parametrize("mean", [0.0, 0.5])
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_gradient_of_a_bias_is_as_inexact_as_tensorflow_s(dtype, jit, mean):
    rng, z, kappas = np.random.default_rng(0), [], []
    for n in (16, 64, 180, 180, 512, 1500):
        terms = np.asarray(tf.cast(mean + rng.standard_normal((n, 16)), dtype), np.float64)
        ours = np.sum(exact(terms, PRECISIONS[dtype]), axis=0)
        # In half precisions small terms are lost in large partial sums: κ is measured by a twin.
        twin = np.sum(Simulating().array(terms, dtype), axis=0) if dtype != "float32" else None
        kappas.append(1.0 if twin is None else _kappa(twin, ours))
        z.append(np.abs(bias_add_grad(terms, dtype, jit) - ours.value) / ours.sigma / kappas[-1])
    assert np.max(z) < 4
    assert np.max(kappas) < (1.2 if mean == 0 else 8)
    if dtype == "bfloat16" and not jit:
        assert np.sqrt(np.mean(np.square(z))) > 0.3


@pytest.mark.parametrize("rows", [(180,), (12, 15)])
def test_simulated_bfloat16_sums_over_rows_are_tensorflow_s(rows):
    terms = np.random.default_rng(0).standard_normal((*rows, 7))
    held = Simulating().array(terms, "bfloat16")
    ours = held.sum(axis=tuple(range(len(rows)))).value
    np.testing.assert_array_equal(ours, bias_add_grad(held.value, "bfloat16", jit=False))
    kept = np.sum(held, axis=0, keepdims=True)
    assert kept.shape == (1, *rows[1:], 7)


def test_bfloat16_sums_that_are_not_over_rows_accumulate_in_float32():
    rng = np.random.default_rng(0)
    dy = np.asarray(tf.cast(rng.standard_normal((180, 16)) + 2, "bfloat16"), np.float64)
    held, exactly = Simulating().array(dy, "bfloat16"), exact(dy, PRECISIONS["bfloat16"])
    for options in ({"axis": 1}, {"axis": -1, "keepdims": True}, {"axis": None}):
        right = np.sum(dy, **options)
        held_right = PRECISIONS["bfloat16"].nearest(right)
        np.testing.assert_array_equal(np.sum(held, **options).value, held_right)
        np.testing.assert_allclose(
            np.sum(exactly, **options).sigma, 2.0**-8 * 2 ** np.floor(np.log2(right)), rtol=1e-3
        )
    assert np.all(np.mean(exactly, axis=0).sigma < np.sum(exactly, axis=0).sigma / 180 / 3)


def test_products_of_no_columns_and_of_what_is_not_finite():
    assert (exact(np.ones((3, 20))) @ exact(np.ones((20, 0)))).shape == (3, 0)
    a = np.ones((2, 400))
    a[0, 0], a[0, 399] = np.inf, -np.inf
    with np.errstate(all="ignore"):
        y = exact(a) @ exact(np.full((400, 3), 0.1))
    assert np.isnan(y.value[0]).all()
    assert np.isfinite(y.sigma[1]).all()
