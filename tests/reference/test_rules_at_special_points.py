"""Nets of derived rules at ties and at infinite slopes, each beside a net without them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import gradaudit

X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
Y = np.ones((8, 1), "float32")


def behind_zeros(layer, kernel):
    """Return a net whose layer is given exact zeros, or numbers where the kernel is not zero."""
    inputs = keras.Input((3,))
    z = layers.Dense(4, use_bias=False, kernel_initializer=kernel, name="pre")(inputs)
    model = keras.Model(inputs, layers.Dense(1, name="out")(layer(z)))
    model.compile("sgd", "mse")
    return model


def prelu(alpha):
    return layers.PReLU(alpha_initializer=keras.initializers.Constant(alpha), name="act")


def gradient_of_pre(run):
    return run.tensors.query("stage == 'gradient' and path == 'pre/kernel'").iloc[0]


WRONG_AT_0 = {
    # Keras adds the slopes of maximum(z, 0) and minimum(z, 0): the derivative is 1, and it has 2.
    "celu": (lambda: layers.Activation("celu", name="act"), "fail", "(celu)", "where z is 0"),
    # 0 lies between no slopes before and behind; what does is a choice, and so no fail.
    "PReLU": (lambda: prelu(0.25), "kink", "(Relu)", "where x is 0: it is 0"),
    "ReLU": (lambda: layers.ReLU(6.0, 0.1, name="act"), "kink", "(relu)", "where z is 0: it is 0"),
}


@pytest.mark.parametrize("name", WRONG_AT_0)
def test_where_keras_s_gradient_at_0_is_none_it_is_named(name):
    build, verdict, op, where = WRONG_AT_0[name]
    found = gradient_of_pre(gradaudit.check(behind_zeros(build(), "zeros"), X, Y))
    assert found["verdict"] in (verdict, "unresolved" if verdict == "kink" else verdict)
    assert (
        f"TensorFlow's gradient of the op 'act' {op}, which is not its derivative {where}"
        in (found["cause"])
    )
    healthy = gradaudit.check(behind_zeros(build(), "glorot_uniform"), X, Y)
    assert healthy.verdict == "pass"
    assert gradient_of_pre(healthy)["cause"] == ""


@pytest.mark.parametrize("alpha", [0.0, -0.5])
def test_the_slope_0_of_prelu_at_0_is_right_where_it_lies_between_the_others(alpha):
    run = gradaudit.check(behind_zeros(prelu(alpha), "zeros"), X, Y)
    assert run.verdict == "pass"
    assert gradient_of_pre(run)["cause"] == ""


@pytest.mark.parametrize("kernel", ["zeros", "glorot_uniform"])
@pytest.mark.parametrize("name", ["UnitNormalization", "RMSNormalization", "LayerNormalization"])
def test_a_vector_of_zeros_that_is_normalized_passes(name, kernel):
    run = gradaudit.check(behind_zeros(getattr(layers, name)(), kernel), X, Y)
    assert run.verdict == "pass"


@pytest.mark.parametrize("hidden", [np.inf, 1.0])
def test_a_class_that_a_mask_takes_out_of_the_logits_passes(hidden):
    inputs, mask = keras.Input((3,)), keras.Input((4,))
    logits = ops.add(layers.Dense(4)(inputs), mask)
    model = keras.Model([inputs, mask], logits)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    minus = np.zeros((8, 4), "float32")
    minus[:, 3] = -hidden
    assert gradaudit.check(model, [X, minus], np.arange(8) % 3).verdict == "pass"


@pytest.mark.parametrize("equal", [1, 0])
def test_the_distance_of_equal_pairs_passes(equal):
    one, other = keras.Input((3,)), keras.Input((3,))
    encode = layers.Dense(4, "relu")
    apart = ops.sum(ops.square(encode(one) - encode(other)), axis=1, keepdims=True)
    model = keras.Model([one, other], ops.sqrt(apart))
    model.compile("adam", "mse")
    right = X + 1
    right[:equal] = X[:equal]
    targets = np.ones((8, 1), "float32")
    targets[0] = 0  # the distance itself: no cotangent comes to the root
    assert gradaudit.check(model, [X, right], targets).verdict == "pass"
