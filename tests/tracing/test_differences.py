"""Ops without an entry: their derivative by differences beside TensorFlow's tape."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradaudit
from gradaudit.errors import UnsupportedModelError
from gradaudit.numerics import Plain, Rounding
from gradaudit.tracing import trace


def _positive(x):
    return x @ tf.transpose(x) + tf.linalg.diag(tf.cast(tf.range(1, 1 + x.shape[0]), x.dtype))


SMOOTH = {
    "lgamma": tf.math.lgamma,
    "digamma": tf.math.digamma,
    "erfinv": lambda x: tf.math.erfinv(x / 3),
    "igamma": lambda x: tf.math.igamma(2.0, x),
    "betainc": lambda x: tf.math.betainc(tf.ones_like(x), 3.0 * tf.ones_like(x), x / 3),
    "singular values": lambda x: tf.linalg.svd(x, compute_uv=False),
    "eigenvalues": lambda x: tf.linalg.eigvalsh(_positive(x)),
    "orthogonal": lambda x: tf.linalg.qr(x)[1],
    "python by elements": lambda x: tf.py_function(lambda a: a * tf.sin(a), [x], x.dtype),
    "python by rows": lambda x: tf.py_function(
        lambda a, b: tf.sin(a) * tf.reduce_sum(b, 1, keepdims=True), [x, x * x], x.dtype
    ),
    "python that hardly depends on others": lambda x: tf.py_function(
        lambda a: tf.sin(a) + 1e-6 * tf.reduce_sum(a**2), [x], x.dtype
    ),
    "python in columns of other sizes": lambda x: tf.py_function(
        lambda a: a * [1e6, 1.0, 1e-3] * tf.nn.softmax(a), [x], x.dtype
    ),
    "python of all": lambda x: tf.py_function(
        lambda a: [tf.reduce_sum(a), a / tf.reduce_max(a)], [x], [x.dtype, x.dtype]
    ),
}


def _rows(shape=(5, 3)):
    return np.random.default_rng(0).uniform(0.5, 2.0, shape).astype(np.float32)


def _tape(function, x, dys):
    with tf.GradientTape() as tape:
        tape.watch(tensor := tf.constant(x))
        ys = tf.nest.flatten(function(tensor))
    dys = [tf.cast(dy, x.dtype) for dy in dys]
    return [*map(np.asarray, ys), tape.gradient(ys, tensor, dys).numpy()]


@pytest.mark.parametrize("name", SMOOTH)
def test_derivative_and_errors_are_the_tape_s(name):
    x, function = _rows(), SMOOTH[name]
    rng, shapes = np.random.default_rng(1), [y.shape for y in tf.nest.flatten(function(_wide(x)))]
    dys = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    runs = []
    for arithmetic in (Plain(np.float64), Rounding()):
        given = [arithmetic.array(dy, "float32") for dy in dys]
        x_held = arithmetic.array(x, "float32")
        ys, vjp = trace(function, [x], []).run([x_held], None, arithmetic, False)
        runs.append([*ys, *vjp(given).of_inputs])
    for made, right in zip(runs[0], _tape(function, np.float64(x), dys), strict=True):
        np.testing.assert_allclose(made, right, rtol=1e-7, atol=1e-8)
    for made, found in zip(runs[1], _tape(function, x, dys), strict=True):
        assert (np.abs(found - made.value) <= 4 * made.sigma).all()
        assert (made.sigma <= 1e-4 * np.abs(made.value).max()).all()


def _wide(x):
    return tf.constant(x, tf.float64)


WEIGHT = tf.Variable(2.0, dtype=tf.float64)


def _narrow(a):
    assert a.dtype == tf.float32, "of float32 alone"
    return a


REFUSED = {
    "AssertionError: of float32 alone": _narrow,
    "returns other values": lambda a: a * np.random.default_rng().random(),
    "its outputs are not float64": lambda a: tf.cast(a, tf.float32),
    "does not run in float64": lambda a: a + tf.ones((), tf.float32),
    "it reads .* pass the value as an argument": lambda a: a * WEIGHT.value(),
    "no derivative by differences": lambda a: tf.floor(1e5 * a),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_refused_is_told(reason):
    def function(x):
        return tf.py_function(REFUSED[reason], [x], x.dtype)

    words = rf"\(EagerPyFunc\) at .*test_differences\.py:\d+ .*{reason}"
    with pytest.raises(UnsupportedModelError, match=words):
        trace(function, [_rows()], []).run([_rows()], None, Plain(np.float64), False)


def test_a_kink_that_is_met_exactly_is_a_kink():
    x = np.array([[0.0, 1.0, -1.0]], np.float32)

    def function(x):
        return tf.py_function(tf.nn.relu, [x], x.dtype)

    arithmetic = Rounding()
    _, vjp = trace(function, [x], []).run([arithmetic.array(x, "float32")], None, arithmetic, False)
    (dx,) = vjp([arithmetic.array(np.full(x.shape, 2.0), "float32")]).of_inputs
    np.testing.assert_allclose(dx.value, [[1.0, 2.0, 0.0]], atol=1e-9)
    assert dx.kink[0, 0] >= 1
    assert not dx.kink[0, 1:].any()


@pytest.mark.parametrize("is_random", [False, True])
def test_python_code_on_data_alone_is_run_if_it_is_no_chance(is_random):
    def augmented(x):
        noise = np.random.default_rng(None if is_random else 0).random(x.shape)
        return (x + noise).astype(x.dtype)

    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Lambda(
                lambda x: tf.ensure_shape(tf.numpy_function(augmented, [x], x.dtype), x.shape)
            ),
            layers.Dense(2),
        ]
    )
    model.compile("sgd", "mse", jit_compile=False)
    x = np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32)
    run = gradaudit.check(model, x, x[:, :2])
    assert run.verdict == ("unjudged" if is_random else "pass")
    if is_random:
        assert "returns other values for the same inputs" in run.run["unjudged"][0]


def test_too_many_inputs_that_depend_on_each_other_are_refused():
    x = _rows((40, 40))
    with pytest.raises(UnsupportedModelError, match="more than 1024 of its inputs"):
        trace(lambda x: tf.linalg.qr(x)[1], [x], []).run([x], None, Plain(np.float64), False)


def _model(function):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(5, name="before"),
            layers.Lambda(function, name="python"),
            layers.Dense(2, name="behind"),
        ]
    )
    model.compile("sgd", "mse", jit_compile=False)
    return model


def _through_python(x):
    return tf.ensure_shape(tf.py_function(lambda a: a * tf.tanh(a), [x], x.dtype), x.shape)


def _through_numpy(x):
    return tf.ensure_shape(tf.numpy_function(lambda a: a * np.tanh(a), [x], x.dtype), x.shape)


def test_python_code_in_a_model_is_judged_by_differences():
    x = np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32)
    run = gradaudit.check(_model(_through_python), x, x[:, :2])
    assert run.verdict == "pass", run.run["failures"] or run.run["unjudged"]
    gradients = run.tensors.query("stage == 'gradient'")
    gradients = gradients.set_index(gradients["layer"].str.rpartition("/")[2])
    assert set(gradients.loc["before", "oracle"]) == {"numeric"}
    assert set(gradients.loc["behind", "oracle"]) == {"derived"}
    assert set(gradients.loc["before", "provenance"]) == {"numeric"}
    assert set(gradients.loc["behind", "provenance"]) == {""}
    assert gradients["max_z"].max() < 4
    for cause in gradients.loc["before", "cause"]:
        assert re.search(
            r"the derivative by differences of .*\(EagerPyFunc\) in python at .*test_differences",
            cause,
        )


@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables:UserWarning")
def test_a_gradient_that_numpy_code_stops_is_found():
    x = np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32)
    run = gradaudit.check(_model(_through_numpy), x, x[:, :2])
    failed = run.tensors.query("stage == 'gradient' and verdict == 'fail'")
    assert set(failed["layer"].str.rpartition("/")[2]) == {"before"}
    assert failed["cause"].str.contains("PyFunc").all()
