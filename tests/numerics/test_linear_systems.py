"""σ of matrix equations against TensorFlow's float32 errors and against perturbed inputs."""

import numpy as np
import pytest
import tensorflow as tf

from gradaudit.numerics import PRECISIONS, Rounded

FLOAT32, FLOAT64 = PRECISIONS["float32"], PRECISIONS["float64"]
FUNCTIONS = {
    "solve": (np.linalg.solve, tf.linalg.solve),
    "inv": (lambda a, b: np.linalg.inv(a), lambda a, b: tf.linalg.inv(a)),
    "det": (lambda a, b: np.linalg.det(a), lambda a, b: tf.linalg.det(a)),
    "slogdet": (lambda a, b: np.linalg.slogdet(a)[1], lambda a, b: tf.linalg.slogdet(a)[1]),
    "cholesky": (lambda a, b: np.linalg.cholesky(a), lambda a, b: tf.linalg.cholesky(a)),
}
MATRICES = {
    "of any kind": lambda rng, n: rng.standard_normal((4, n, n)) / np.sqrt(n),
    "positive": lambda rng, n: _covariance(rng.standard_normal((4, n, n))),
    "nearly singular": lambda rng, n: _covariance(
        rng.standard_normal((4, n, n)) * np.geomspace(1e-2, 1, n)
    ),
}
CASES = [(f, m) for f in FUNCTIONS for m in MATRICES if f != "cholesky" or m != "of any kind"]


def _covariance(a):
    return np.swapaxes(a, -1, -2) @ a / a.shape[-1]


def _inputs(matrices, n):
    rng = np.random.default_rng(n)
    a, b = MATRICES[matrices](rng, n), rng.standard_normal((4, n, 3))
    return [np.asarray(part, np.float32).astype(np.float64) for part in (a, b)]


def _known_to(part, size):
    return Rounded(part, size**2, None, FLOAT64)


@pytest.mark.parametrize(
    ("function", "matrices", "n"),
    [
        (function, matrices, n)
        for function, matrices in CASES
        for n in (1, 3, 20, 50)
        if function != "det" or n <= 3  # float32 holds smaller ones with fewer digits, or not
    ],
)
def test_sigma_is_that_of_float32_errors(function, matrices, n):
    ours, theirs = FUNCTIONS[function]
    given = _inputs(matrices, n)
    y = ours(*(Rounded(part, None, None, FLOAT32) for part in given))
    np.testing.assert_allclose(y.value, ours(*given), rtol=1e-9, atol=1e-12)
    found = np.asarray(theirs(*(tf.constant(part, tf.float32) for part in given)))
    lost = np.abs(found - y.value)
    assert (lost <= 4 * y.sigma).all()
    if n > 3:
        is_made = y.sigma > 0
        assert np.sqrt(np.mean(np.square(lost[is_made] / y.sigma[is_made]))) > 0.02


@pytest.mark.parametrize(("function", "matrices"), CASES)
def test_errors_of_inputs_are_propagated(function, matrices):
    ours, _ = FUNCTIONS[function]
    rng, given = np.random.default_rng(0), _inputs(matrices, 6)
    sizes = [1e-7 * np.abs(part) for part in given]
    shifts = [[s * rng.standard_normal(s.shape) for s in sizes] for _ in range(400)]
    if function == "cholesky":  # of a symmetric matrix: both halves are off alike
        shifts = [[np.tril(a) + np.swapaxes(np.tril(a, -1), -1, -2), b] for a, b in shifts]
    spread = np.std([ours(given[0] + da, given[1] + db) for da, db in shifts], axis=0)
    y = ours(*map(_known_to, given, sizes))
    is_made = spread > 0
    ratio = y.sigma[is_made] / spread[is_made]
    assert ratio.min() > 0.5
    assert ratio.max() < 2 or matrices == "nearly singular"


def test_a_kink_is_propagated_through_a_solution():
    a, b = _inputs("positive", 3)
    kink = np.zeros(b.shape)
    kink[0, 1] = 1.0
    x = np.linalg.solve(Rounded(a, None, None, FLOAT32), Rounded(b, None, kink, FLOAT32))
    np.testing.assert_allclose(x.kink, np.abs(np.linalg.inv(a)) @ kink)
