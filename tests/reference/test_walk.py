"""The walk of a model against the tape in float64, for graphs that the nets do not have."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradaudit.capture import Replay
from gradaudit.errors import UnsupportedModelError
from gradaudit.numerics import Plain
from gradaudit.reference.walk import Walk, output_layer


@pytest.fixture
def float64():
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")


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
    walk = Walk(values, Plain(np.float64), Replay(jit=False))
    ys, dtypes, vjp = walk.model(model, [x], ["float64"])
    vjp(dys)
    assert dtypes == ["float64"] * len(outputs)
    for ours, theirs in zip(ys, outputs, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    for variable, theirs in zip(model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(
            walk.cotangents[variable.path], theirs, rtol=1e-11, atol=1e-13, err_msg=variable.path
        )


def test_the_output_layer_is_found_through_nested_models():
    last = keras.layers.Dense(2, activation="softmax", name="last")
    inner = keras.Sequential([keras.Input((3,)), last])
    assert output_layer(keras.Sequential([keras.Input((3,)), inner])) is last


def test_an_output_that_is_used_again_cannot_be_unwrapped():
    inputs = keras.Input((3,))
    output = keras.layers.Dense(3, activation="softmax", name="out")(inputs)
    model = keras.Model(inputs, [output, keras.layers.Dense(2)(output)])
    values = {v.path: v.numpy() for v in model.variables}
    walk = Walk(values, Plain(np.float64), Replay(jit=False))
    with pytest.raises(UnsupportedModelError, match="also an input of the layer"):
        walk.model(model, [np.ones((1, 3))], ["float64"], to_logits=True)
