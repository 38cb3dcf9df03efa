"""σ of sums and of matrix products against float32 sums in the orders of TensorFlow's kernels."""

import numpy as np
import pytest
import tensorflow as tf

from gradaudit.numerics import PRECISIONS, Rounded

FLOAT32 = PRECISIONS["float32"]


def exact(value, precision=FLOAT32):
    return Rounded(np.asarray(value, np.float64), None, None, precision)


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
def test_sigma_of_distinct_terms_in_random_order_is_that_of_a_random_walk_or_of_their_own(n):
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


def alternating(accumulators):
    """Return a product that sums its terms in float32, in this many alternating accumulators."""

    def product(a, b):
        parts = [
            one_by_one((a.T[:, :, None] * b[:, None, :])[i::accumulators])
            for i in range(accumulators)
        ]
        return sum(parts[1:], parts[0])

    return product


def restarted(a, b):
    """Return a product in float32 whose second half of terms is summed from 0 again."""
    terms, half = a.T[:, :, None] * b[:, None, :], a.shape[1] // 2
    return one_by_one(terms[:half]) + one_by_one(terms[half:])


@pytest.mark.parametrize("n", [18, 72, 320])
@pytest.mark.parametrize(
    "product",
    [
        alternating(1),
        alternating(2),
        alternating(4),
        tf.matmul,
        tf.function(tf.matmul, jit_compile=True),
    ],
    ids=["one by one", "two accumulators", "four accumulators", "TensorFlow", "XLA"],
)
def test_no_element_of_a_large_product_exceeds_sigma_by_the_order_of_its_terms(product, n):
    rng, z = np.random.default_rng(n), []
    for _ in range(4):  # 40,000 elements: 4.6 σ of independent normal errors
        a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((320, n), (n, 32)))
        ours = exact(a) @ exact(b)
        z.append(np.abs(np.asarray(product(a, b), np.float64) - ours.value) / ours.sigma)
    assert np.max(z) < 4.5
    assert np.sqrt(np.mean(np.square(z))) > 0.35


def test_sigma_covers_a_product_that_restarts_half_way():
    rng, z = np.random.default_rng(0), []
    for _ in range(3):
        a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((160, 576), (576, 64)))
        ours = exact(a) @ exact(b)
        z.append(np.abs(restarted(a, b) - ours.value) / ours.sigma)
    assert np.max(z) < 4.5


@pytest.mark.parametrize("n", [18, 72, 576])
def test_no_sum_of_many_exceeds_sigma_by_the_order_of_its_terms(n):
    terms = np.random.default_rng(n).standard_normal((n, 10_000)).astype(np.float32)
    ours = np.sum(exact(terms), axis=0)
    assert np.max(np.abs(one_by_one(terms) - ours.value) / ours.sigma) < 4.5


@pytest.mark.parametrize("shapes", [((70_000, 18), (18, 2)), ((3, 50, 40), (40, 60))])
def test_products_computed_in_blocks_of_rows_are_complete(shapes):
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


def test_zeros_do_not_count_as_equal_terms():
    rng = np.random.default_rng(0)
    terms = np.where(rng.random(1000) < 0.9, 0, rng.standard_normal(1000))
    y = np.sum(exact(terms))
    walk = 1000 * (y.value**2 / 9 + np.sum(terms**2) / 18)
    own = np.sum(np.cumsum(terms) ** 2) / 3
    assert y.sigma == pytest.approx(np.sqrt(2.0**-48 * max(walk, own)), rel=0.1)


def test_errors_carried_by_equal_terms_are_equal():
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


def test_products_without_columns_and_with_nan():
    assert (exact(np.ones((3, 20))) @ exact(np.ones((20, 0)))).shape == (3, 0)
    a = np.ones((2, 400))
    a[0, 0], a[0, 399] = np.inf, -np.inf
    with np.errstate(all="ignore"):
        y = exact(a) @ exact(np.full((400, 3), 0.1))
    assert np.isnan(y.value[0]).all()
    assert np.isfinite(y.sigma[1]).all()


def in_runs(spread, seed):
    """Return A (8, 256) and B (256, 8) in float32: runs of 64 equal rows of B, alike ones of A."""
    rng = np.random.default_rng(seed)
    means, sizes = rng.uniform(0.5, 1.5, (8, 4)), rng.uniform(1e-3, 1.0, (4, 8))
    a = np.repeat(means, 64, axis=1) * (1 + spread * rng.standard_normal((8, 256)))
    return a.astype(np.float32), np.repeat(sizes, 64, axis=0).astype(np.float32)


@pytest.mark.parametrize("name", ["A B one by one", "A B by TensorFlow"])
@pytest.mark.parametrize("spread", [1e-7, 1e-5, 1e-4, 1e-2, 0.3])
def test_terms_that_are_alike_round_alike(name, spread):
    z = []
    for seed in range(30):
        a, b = in_runs(spread, seed)
        ours = exact(a) @ exact(b)
        theirs = np.asarray(SUMMED[name](a, b), np.float64)
        z.append(np.abs(theirs - ours.value) / ours.sigma)
    assert np.max(z) < 5
    if name == "A B one by one":
        assert np.sqrt(np.mean(np.square(z))) > 0.2  # nor is σ too large to be of use


def test_equal_rows_carry_equal_errors():
    """With an error of 1 in each row of a run, the product errs by the sum over A, not by √n."""
    a, b = in_runs(0.3, 0)
    carried = Rounded(b.astype(np.float64), np.full(b.shape, 1e-6), None, FLOAT32)
    sums = a.astype(np.float64).reshape(8, 4, 64).sum(axis=-1)
    expected = 1e-3 * np.sqrt(np.sum(sums**2, axis=-1, keepdims=True))
    assert np.allclose((exact(a) @ carried).sigma, expected, rtol=1e-3)
    b[::2] *= np.float32(1.001)
    carried = Rounded(b.astype(np.float64), np.full(b.shape, 1e-6), None, FLOAT32)
    expected = 1e-3 * np.linalg.norm(a, axis=-1, keepdims=True)
    assert np.allclose((exact(a) @ carried).sigma, expected, rtol=1e-3)


def test_equal_rows_of_zeros_make_no_errors_that_add():
    a, b = in_runs(0.3, 0)
    b[64:] = 0
    distinct = b + 1e-20 * np.random.default_rng(1).standard_normal(b.shape)
    assert np.allclose((exact(a) @ exact(b)).sigma, (exact(a) @ exact(distinct)).sigma, rtol=1e-2)
