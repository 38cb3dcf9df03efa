"""The largest element that log Σ exp is shifted by brings no error of its own."""

import numpy as np
import pytest
import tensorflow as tf

from gradaudit.numerics import Rounding
from gradaudit.tracing import trace
from gradaudit.tracing.shifts import shifts


def _by_hand(x):
    largest = tf.reduce_max(x, -1, keepdims=True)
    return tf.squeeze(largest, -1) + tf.math.log(tf.reduce_sum(tf.exp(x - largest), -1))


def _of_another(x):
    largest = tf.reduce_max(x, -1, keepdims=True)
    return tf.squeeze(largest, -1) + tf.math.log(tf.reduce_sum(tf.exp(2 * x - largest), -1))


def _kept(x):
    largest = tf.reduce_max(x, -1, keepdims=True)
    return tf.math.log(tf.reduce_sum(tf.exp(x - largest), -1))


def _used_twice(x):
    largest = tf.reduce_max(x, -1, keepdims=True)
    return largest * tf.math.log(tf.reduce_sum(tf.exp(x - largest), -1, keepdims=True)) + largest


def _without_logarithm(x):
    largest = tf.reduce_max(x, -1, keepdims=True)
    return largest + tf.reduce_sum(tf.exp(x - largest), -1, keepdims=True)


FOUND = {
    "of TensorFlow": lambda x: tf.reduce_logsumexp(x, -1),
    "of TensorFlow, with the axis": lambda x: tf.reduce_logsumexp(x, -1, keepdims=True),
    "by hand": _by_hand,
}


def _along_others(x):
    largest = tf.reduce_max(x, 1, keepdims=True)
    return tf.squeeze(largest, 1) + tf.math.log(tf.reduce_sum(tf.exp(x - largest), 0))


def _laid_across(x):
    largest = tf.reduce_max(x, 1)
    return largest + tf.math.log(tf.reduce_sum(tf.exp(x - largest), 1))


NOT_FOUND = {
    "along other axes": _along_others,
    "laid across": _laid_across,
    "of another": _of_another,
    "kept": _kept,
    "used twice": _used_twice,
    "without a logarithm": _without_logarithm,
    "no sum": lambda x: tf.reduce_max(x, -1),
}


def _shifts(function):
    graph = tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec((4, 4)))
    return shifts(graph.graph)


@pytest.mark.parametrize("name", FOUND)
def test_a_shift_is_found(name):
    assert len(_shifts(FOUND[name])) == 1


@pytest.mark.parametrize("name", NOT_FOUND)
def test_what_depends_on_the_largest_is_none(name):
    assert not _shifts(NOT_FOUND[name])


def test_the_error_of_a_recursion_does_not_grow():
    x = np.random.default_rng(0).standard_normal((5, 5)).astype(np.float32)

    def chain(x):
        state = x[0]
        for _ in range(40):
            state = tf.reduce_logsumexp(x + state, -1)
        return state

    ((y,), _) = trace(chain, [x], []).run([Rounding().array(x, "float32")], None, Rounding(), False)
    theirs = chain(tf.constant(x)).numpy()
    assert (y.sigma < 1e-4).all()  # and not √3⁴⁰ 1e-7
    assert (np.abs(theirs - y.value) < 4 * y.sigma).all()
