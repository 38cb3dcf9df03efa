"""float16 and bfloat16: `Simulated` against their own arithmetic, and sums over rows."""

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from scipy import special

from gradaudit.backends.tensorflow import machine
from gradaudit.errors import UnsupportedFunctionError
from gradaudit.numerics import PRECISIONS, Rounded, Rounding, Simulating, contraction

FLOAT32, FLOAT16 = PRECISIONS["float32"], PRECISIONS["float16"]


def exact(value, precision=FLOAT32):
    return Rounded(np.asarray(value, np.float64), None, None, precision)


def test_a_float16_sum_that_stagnates_is_a_kink():
    n = 100_000
    assert np.sum(exact(np.ones(n), FLOAT16)).kink > 0
    assert np.sum(exact(np.ones(n), FLOAT32)).kink is None


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_simulated_arithmetic_equals_that_of_the_half_precision(dtype):
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
def test_the_simulated_logistic_function_equals_tensorflow_s(dtype):
    theirs = np.float16 if dtype == "float16" else ml_dtypes.bfloat16
    z = np.linspace(-8, 15, 4001).astype(theirs)
    with np.errstate(all="ignore"):
        ours = special.expit(Simulating().array(z.astype(np.float64), dtype)).value
    kernel = np.asarray(tf.sigmoid(z), np.float64)
    assert np.mean(ours == kernel) > 0.9
    np.testing.assert_allclose(ours, kernel, rtol=2 * float(ml_dtypes.finfo(theirs).eps))


def kappa(twin, ours):
    """Return κ = max(1, rms(|twin − ours| / σ)), as an audit measures it."""
    return max(1.0, np.sqrt(np.mean(((twin.value - ours.value) / ours.sigma) ** 2)))


def bias_add_grad(terms, dtype, jit):
    function = tf.function(lambda dy: tf.raw_ops.BiasAddGrad(out_backprop=dy), jit_compile=jit)
    return np.asarray(function(tf.constant(terms, dtype)), np.float64)


@pytest.mark.parametrize("mean", [0.0, 0.5])
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_sigma_of_a_bias_gradient_is_that_of_bias_add_grad(dtype, jit, mean):
    rng, z, kappas = np.random.default_rng(0), [], []
    for n in (16, 64, 180, 180, 512, 1500):
        terms = np.asarray(tf.cast(mean + rng.standard_normal((n, 16)), dtype), np.float64)
        ours = np.sum(exact(terms, PRECISIONS[dtype]), axis=0)
        # In half precisions small terms are lost in large partial sums: κ is measured by a twin.
        twin = np.sum(Simulating().array(terms, dtype), axis=0) if dtype != "float32" else None
        kappas.append(1.0 if twin is None else kappa(twin, ours))
        z.append(np.abs(bias_add_grad(terms, dtype, jit) - ours.value) / ours.sigma / kappas[-1])
    assert np.max(z) < 4
    assert np.max(kappas) < (1.2 if mean == 0 else 8)
    if dtype == "bfloat16" and not jit:
        assert np.sqrt(np.mean(np.square(z))) > 0.3


@pytest.mark.parametrize("rows", [(180,), (12, 15)])
def test_simulated_bfloat16_sums_over_rows_equal_bias_add_grad(rows):
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


HALVES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def one_after_the_other(a, b, dtype):
    """Return a @ b, accumulated in a half precision."""
    held = [np.asarray(part, np.float64) for part in (a, b)]
    total = np.zeros((a.shape[0], b.shape[1]), HALVES[dtype])
    for k in range(a.shape[1]):
        term = np.outer(held[0][:, k], held[1][k])
        total = (total.astype(np.float64) + term).astype(HALVES[dtype])
    return total.astype(np.float64)


def factors(dtype, n=400):
    rng = np.random.default_rng(0)
    return (rng.standard_normal(shape).astype(HALVES[dtype]) for shape in ((6, n), (n, 5)))


@pytest.mark.parametrize("dtype", HALVES)
def test_an_einsum_may_accumulate_in_the_half_precision(dtype):
    a, b = factors(dtype)
    taken = one_after_the_other(a, b, dtype)

    def of(arithmetic, product=contraction):
        return product(*(arithmetic.array(part.astype(np.float64), dtype) for part in (a, b)))

    np.testing.assert_array_equal(of(Simulating(half_sums=True)).value, taken)
    wide = of(Simulating()).value
    assert np.abs(wide - taken).max() > np.abs(wide - of(Rounding()).value).max() * 4

    def z(ours):
        return np.max(np.abs(taken - ours.value) / ours.sigma)

    assert z(of(Rounding(half_sums=True))) < 4
    assert z(of(Rounding())) > 8
    assert z(of(Rounding(half_sums=True), np.matmul)) > 8  # which has kernels of its own


@pytest.mark.parametrize("dtype", HALVES)
def test_it_is_known_whether_einsums_of_a_model_do_here(dtype):
    a, b = factors(dtype)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, dtype=dtype)])
    here = machine.half_sums(model)
    made = tf.einsum("ab,bc->ac", tf.constant(a, dtype), tf.constant(b, dtype))
    right = a.astype(np.float64) @ b.astype(np.float64)
    unit = PRECISIONS[dtype].roundoff * np.abs(right).max()
    assert (np.abs(np.asarray(made, np.float64) - right).max() > 2 * unit) == here


def test_a_model_without_half_precisions_runs_none(monkeypatch):
    monkeypatch.setattr(machine, "_accumulates", None)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    assert machine.half_sums(model) is False
