"""Choices within rounding errors whose branches lead to the same gradient are judged."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import gradaudit
from gradaudit.audit.single_step import recorded
from gradaudit.reference import derive
from suite import by_default

ROWS = 8
RNG = np.random.default_rng(0)
X = RNG.standard_normal((ROWS, 4)).astype(np.float32)
ADVANTAGE = RNG.standard_normal(ROWS).astype(np.float32)
ACTION = RNG.integers(0, 3, ROWS)


def smaller(ratio, clipped):
    return tf.minimum(ratio, clipped)


def chosen(ratio, clipped):
    return tf.where(ratio < clipped, ratio, clipped)


def policy(objective, factor):
    """Return a PPO step at ratio 1, with a layer whose gradient is multiplied by a factor."""

    @tf.custom_gradient
    def scaled(z):
        return tf.identity(z), lambda dy: factor * dy

    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    h = keras.layers.Dense(8, "tanh", name="hidden")(inputs)
    h = keras.layers.Lambda(scaled, name="scaled")(h)
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(h))

    def of_actions(logits):
        return tf.gather(tf.nn.log_softmax(logits), ACTION, batch_dims=1)

    before = of_actions(model(X)).numpy()

    def loss(y, logits):
        ratio = tf.exp(of_actions(logits) - before)
        clipped = tf.clip_by_value(ratio, 0.8, 1.2)
        return -tf.reduce_mean(objective(ratio * ADVANTAGE, clipped * ADVANTAGE))

    model.compile("sgd", loss)
    return gradaudit.check(model, X, np.zeros((ROWS, 1), np.float32))


@pytest.mark.parametrize("objective", by_default([smaller, chosen], [smaller]))
def test_a_step_of_ppo_at_ratio_1_is_judged(objective):
    gradients = policy(objective, 1.0).tensors.query("stage == 'gradient'")
    assert set(gradients["verdict"]) == {"pass"}
    assert (gradients["kinks"] > 0).any()  # the two branches are alike up to rounding
    wrong = policy(objective, 1.01)
    assert wrong.verdict == "fail"
    failed = set(wrong.tensors.query("verdict == 'fail'")["path"])
    assert failed == {"hidden/kernel", "hidden/bias"}


def gate(x):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((2,))
    h = keras.layers.Dense(2, kernel_initializer="identity", use_bias=False)(inputs)
    h = keras.layers.Lambda(lambda z: z / (1 + tf.exp(z)), name="own_gate")(h)
    model = keras.Model(inputs, keras.layers.Dense(1)(h))
    model.compile("sgd", "mse")
    return derive(*recorded(model, np.asarray(x, np.float32), np.ones((len(x), 1))))


def test_the_op_that_may_overflow_is_named():
    words = gate([[1.0, 88.7228], [2.0, 1.0]]).overflow().words
    assert "Exp(88.7228) may overflow in float32, in the layer 'own_gate'" in words
    assert "row 0, at [1] in it" in words
    assert gate([[1.0, 8.0], [2.0, 1.0]]).overflow() is None
