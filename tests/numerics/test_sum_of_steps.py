import keras
import numpy as np
import pytest
import tensorflow as tf

import gradaudit
from gradaudit.numerics import PRECISIONS, Rounded, SumOfSteps
from suite import by_default

_SINGLE = PRECISIONS["float32"]


def ratio_to_independent(signs):
    """Return σ of the sum of terms ±a, over that of a plain sum of the same terms."""
    terms = [Rounded(np.array([s * 0.7]), np.array([1e-4]), None, _SINGLE) for s in signs]
    steps, plain = SumOfSteps(), terms[0]
    for term in terms:
        steps.add(term)
    for term in terms[1:]:
        plain = plain + term
    total = steps.total()
    assert total.value == plain.value
    return float(total.sigma[0] / plain.sigma[0])


def test_errors_of_equal_terms_are_alike():
    for n in (2, 9, 50):
        assert ratio_to_independent([1] * n) == pytest.approx(np.sqrt(n), rel=1e-6)


def test_errors_of_terms_that_alternate_are_independent():
    for n in (2, 9, 50):
        assert ratio_to_independent([(-1) ** k for k in range(n)]) == pytest.approx(1.0, rel=1e-6)


def test_arrays_without_errors_are_added():
    steps = SumOfSteps()
    for k in range(4):
        steps.add(np.array([k, 2.0 * k]))
    np.testing.assert_array_equal(steps.total(), [6.0, 12.0])


@tf.custom_gradient
def wrong_gradient(kernel):
    """Return the kernel; the gradient of its weight (0, 8) has a relative error of 1e-4."""

    def gradient(dkernel):
        factors = tf.one_hot(8, tf.size(dkernel), 1.0001, 1.0)
        return dkernel * tf.reshape(factors, dkernel.shape)

    return tf.identity(kernel), gradient


@pytest.mark.parametrize("planted", by_default([False, True], [True]))
def test_an_error_in_one_weight_of_an_lstm_is_found_after_50_steps(planted):
    keras.utils.set_random_seed(3)
    lstm = keras.layers.LSTM(3)
    model = keras.Sequential([keras.Input((50, 2)), lstm, keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    cell = lstm.cell

    def call(x, states, training=None):
        h, c = states
        recurrent = wrong_gradient(tf.identity(cell.recurrent_kernel.value))
        z = x @ cell.kernel + h @ recurrent + cell.bias
        i, f, g, o = tf.split(z, 4, axis=1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        h = tf.sigmoid(o) * tf.tanh(c)
        return h, [h, c]

    if planted:
        cell.call = call
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4, 50, 2)), rng.standard_normal((4, 1))
    run = gradaudit.check(model, x.astype(np.float32), y.astype(np.float32))
    worst = run.weights.query("stage == 'gradient'").sort_values("z").iloc[-1]
    assert run.verdict == ("fail" if planted else "pass")
    if planted:
        assert (worst["path"].rsplit("/", 1)[-1], worst["index"]) == ("recurrent_kernel", "0,8")
