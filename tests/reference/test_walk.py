"""The walk of a model against the tape in float64, for graphs that the nets do not have."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradaudit.backends.tensorflow import Replay, present_config
from gradaudit.numerics import Plain
from gradaudit.reference.arguments import Tensor
from gradaudit.reference.walk import Walk


def functional():
    shared = keras.layers.Dense(3, activation="tanh", name="shared")
    inputs = keras.Input((3,))
    first = shared(inputs)
    second = shared(first)  # the same weights twice
    left = keras.layers.Dense(2, activation="relu", name="left")(first)  # a branch
    right = keras.layers.Dense(4, name="right")(keras.layers.Activation("gelu")(second))
    return keras.Model(inputs, [left, right])


def nested():
    inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, activation="silu")])
    return keras.Sequential([keras.Input((3,)), inner, keras.layers.Dense(2), inner_again(inner)])


def inner_again(inner):
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), inner])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("build", [functional, nested])
def test_branches_shared_layers_and_nested_models(build):
    model = build()
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(rng.standard_normal(variable.shape))
    x = rng.standard_normal((5, 3))
    with tf.GradientTape() as tape:
        outputs = tf.nest.flatten(model(x))
        dys = [rng.standard_normal(y.shape) for y in outputs]
        loss = sum(tf.reduce_sum(y * dy) for y, dy in zip(outputs, dys, strict=True))
    expected = tape.gradient(loss, [v.value for v in model.trainable_variables])

    values = {v.path: v.numpy() for v in model.variables}
    walk = Walk(values, Plain(np.float64), Replay(jit=False), config=present_config())
    ys = walk.model(model, [Tensor(x, "float64")])
    for ours, theirs, dy in zip(ys, outputs, dys, strict=True):
        assert ours.dtype == "float64"
        np.testing.assert_allclose(ours.value, theirs, rtol=1e-12)
        ours.add(dy)
    walk.backward()
    for variable, theirs in zip(model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(
            walk.cotangents[variable.path], theirs, rtol=1e-11, atol=1e-13, err_msg=variable.path
        )
