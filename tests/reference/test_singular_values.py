"""Nets at values where an op of theirs is not smooth, each beside the same net at other values."""

import itertools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow.experimental.numpy as tnp
from keras import layers, ops

import gradaudit
from suite import by_default

X = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
Y = np.random.default_rng(1).standard_normal((6, 1)).astype(np.float32)


class Applied(layers.Layer):
    """y = function(x, a, b) of two weights that begin with given values."""

    def __init__(self, function, a, b, **options):
        super().__init__(**options)
        self.function, self.values = function, (a, b)

    def build(self, shape):
        self.a, self.b = (
            self.add_weight(
                shape=(4,), initializer=lambda *_, value=value, **__: ops.zeros(4) + value, name=n
            )
            for n, value in zip("ab", self.values, strict=True)
        )

    def call(self, x):
        return self.function(x, self.a, self.b)


def _checked(function, a, b, jit=False):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4,)), Applied(function, a, b, name="applied"), layers.Dense(1, name="out")]
    )
    model.compile("sgd", "mse", jit_compile=jit)
    return gradaudit.check(model, X, Y)


def _with_zero(value):
    return np.where(np.arange(4) == 2, 0.0, value)


MISLED = {
    "cumprod": (
        lambda x, a, b: tf.math.cumprod(a * (1 + b), -1) * x,
        (_with_zero(1.5), 0.5),
        (1.5, 0.5),
        r"\(Cumprod\) .* where x is 0, as at \[2\]",
    ),
    "cumprod from the end, without its own": (
        lambda x, a, b: tf.math.cumprod(a + b * x, -1, exclusive=True, reverse=True),
        (_with_zero(1.5), 0.0),
        (1.5, 0.1),
        r"\(Cumprod\) .* where x is 0, as at \[0, 2\]",
    ),
    "xlogy": (
        lambda x, a, b: tf.math.xlogy(a, b) * x,
        (0.0, 2.0),
        (0.5, 2.0),
        r"\(Xlogy\) .* by x where x is 0, as at \[0\]",
    ),
    "xlog1py": (
        lambda x, a, b: tf.math.xlog1py(a, b) * x,
        (_with_zero(1.0), 2.0),
        (1.0, 2.0),
        r"\(Xlog1py\) .* by x where x is 0, as at \[2\]",
    ),
    "xdivy": (
        lambda x, a, b: tf.math.xdivy(a, b + x**2),
        (0.0, 2.0),
        (0.5, 2.0),
        r"\(Xdivy\) .* by x where x is 0, as at \[0, 0\]",
    ),
    "logaddexp of Keras": (
        lambda x, a, b: ops.logaddexp(x + a, x + b),
        (0.0, 0.0),
        (0.0, 0.3),
        r"\(Maximum\) of logaddexp .* where Maximum and Abs meet equal values, as at \[0, 0\]",
    ),
    "logaddexp of TensorFlow": (
        lambda x, a, b: tnp.logaddexp(x + a, x + b),
        (0.0, 0.0),
        (0.0, 0.3),
        r"\(Maximum\) of logaddexp .* where Maximum and Abs meet equal values, as at \[0, 0\]",
    ),
    "logaddexp to base 2": (
        lambda x, a, b: ops.logaddexp2(x + a, x + b),
        (0.0, 0.0),
        (0.0, 0.3),
        r"of logaddexp2 .* where Maximum and Abs meet equal values",
    ),
    "ldexp": (
        lambda x, a, b: ops.ldexp(a, 2) * x + b,
        (0.0, 0.0),
        (0.5, 0.0),
        r"\(Equal\) of ldexp .* where Equal meets equal values, as at \[0\]",
    ),
    "weighted cross-entropy": (
        lambda x, a, b: tf.nn.weighted_cross_entropy_with_logits(tf.sigmoid(x + b), a * x, 2.0),
        (0.0, 1.0),
        (0.5, 1.0),
        r"of weighted_cross_entropy_with_logits_v2 .* where Abs and Relu meet equal values",
    ),
    "two halves of a line": (
        lambda x, a, b: tf.nn.relu(a * x) - tf.nn.relu(-a * x) + b,
        (0.0, 0.0),
        (0.5, 0.0),
        r"\(Relu\) .* where Relu meets equal values",
    ),
    "a quotient with its limit at 0": (
        lambda x, a, b: tf.where(a == 0, 1.0, (tf.exp(a) - 1) / tf.where(a == 0, 1.0, a)) * x + b,
        (0.0, 0.0),
        (0.5, 0.0),
        r"\(Equal\) .* where Equal meets equal values, as at \[0\]",
    ),
    "saturation of a colour": (
        lambda x, a, b: tf.image.rgb_to_hsv(tf.stack([a + 1, b, a + 2], -1))[:, 1] * x,
        (1.0, 0.0),
        (1.0, 0.5),
        r"\(RGBToHSV\) .* where the smallest channel is 0",
    ),
}
"""By name: a function of x, a and b; values of a and b at which TensorFlow's gradient is wrong, and
values at which it is right; what a cause says."""


@pytest.mark.parametrize(
    ("name", "jit"),
    by_default(
        itertools.product(MISLED, (False, True)),
        chosen=[
            *((name, False) for name in [*MISLED][::4]),
        ],
    ),
)
def test_a_gradient_of_tensorflow_that_is_wrong_is_named_with_its_op_layer_line_and_values(
    name, jit
):
    function, wrong, right, words = MISLED[name]
    run = _checked(function, *wrong, jit)
    assert run.verdict == "fail"
    failed = run.tensors.query("stage == 'gradient' and verdict == 'fail'")
    assert len(failed)
    for cause in failed["cause"]:
        assert re.search(r" in applied[\w/]* at .*test_singular_values\.py:\d+.* is not its", cause)
        assert re.search(words, cause)
    healthy = _checked(function, *right, jit)
    assert healthy.verdict == "pass", healthy.run["failures"]
    assert not healthy.tensors["provenance"].any()


KINKS = {
    "a maximum": lambda x, a, b: tf.maximum(x + a, x + b),
    "an absolute value beside a maximum": lambda x, a, b: tf.abs(a * x) + tf.maximum(b * x, 0.0),
    "two rectifiers": lambda x, a, b: tf.nn.relu(tf.nn.relu(a * x) * x + a) + b,
    "a jump": lambda x, a, b: tf.where(a == 0, 5.0, a) + b * x,
    "a mask of zeros that a rectifier left": lambda x, a, b: (
        tf.where(tf.nn.relu(a - x**2) == 0, -9.0, a) + b * x
    ),
}


@pytest.mark.parametrize("name", KINKS)
def test_at_a_kink_tensorflow_s_choice_is_right(name):
    run = _checked(KINKS[name], 0.0, 0.0)
    assert run.verdict == "pass", run.run["failures"]
    assert not run.tensors["provenance"].any()


def _labels(name):
    hot = np.eye(4)[[0, 1, 2, 3, 0, 1]]
    return {
        "one-hot": hot,
        "soft": 0.7 * hot + 0.3 / 4,
        "tags": hot + (np.arange(6)[:, None] == 4) * np.eye(4)[2],
        "padded": hot * (np.arange(6)[:, None] != 4),
        "nearly": (0.7 * hot + 0.3 / 4) * np.where(np.arange(6) == 4, 1.00005, 1)[:, None],
        "softmax": keras.ops.convert_to_numpy(keras.ops.softmax(X.astype(np.float32))),
    }[name]


@pytest.mark.parametrize(
    ("name", "total", "oracle", "jit"),
    [
        ("one-hot", None, "derived", False),
        ("soft", None, "derived", True),
        ("soft", None, "traced", False),
        ("softmax", None, "derived", False),
        ("softmax", None, "traced", False),
        ("nearly", 1.00005, "derived", False),
        ("nearly", 1.00005, "traced", False),
        ("tags", 2, "derived", False),
        ("tags", 2, "derived", True),
        ("tags", 2, "traced", False),
        ("padded", 0, "derived", False),
    ],
)
def test_labels_that_do_not_sum_to_one_are_told_with_their_row(name, total, oracle, jit):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="logits")])
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, jit_compile=jit)
    run = gradaudit.check(model, X, _labels(name).astype(np.float32), oracle=oracle)
    causes = run.tensors.query("stage == 'gradient'")["cause"]
    if total is None:
        assert run.verdict == "pass"
        assert not causes.any()
        return
    assert run.verdict == "fail"
    said = f"the rows of y do not sum to 1: row 4 sums to {total}"
    assert causes.str.contains(f"SoftmaxCrossEntropyWithLogits.*{said}").all()


def _wrong_by_half(x):
    return tf.identity(x), lambda dy: 1.5 * dy


LIMITS = {
    "a root in the branch that is not taken": (
        lambda x, a, b: tf.where(a > 0, tf.sqrt(a), 0.0) * x + b,
        _with_zero(2.0),
    ),
    "the square of a distance that is 0": (
        lambda x, a, b: tf.sqrt(tf.reduce_sum(tf.square(a - 2.0)[:, None], 1)) ** 2 * x + b,
        np.array([2.0, 1.0, 3.0, 2.0]),
    ),
    "a power of zeros by its exponent": (
        lambda x, a, b: tf.pow(tf.nn.relu(x), a) + b,
        2.5,
    ),
    "a safe norm of zeros": (
        lambda x, a, b: tf.math.l2_normalize(a * 0.0 + x * _with_zero(0.0), -1) + b * x,
        1.0,
    ),
}
"""By name: a function of x, a and b, and a value of a, at which a slope is infinite and its
cotangent is 0."""


@pytest.mark.parametrize("name", by_default(LIMITS, [*LIMITS][:2]))
def test_a_slope_that_no_cotangent_reaches_leaves_no_trace(name):
    function, a = LIMITS[name]
    run = _checked(function, a, 0.5)
    assert run.verdict == "pass", run.run["failures"]
    assert not run.tensors.query("stage == 'gradient'")["cause"].any()
    assert np.isfinite(run.weights[["reference", "sigma"]]).all(axis=None)

    def spoilt(x, a, b):
        return tf.custom_gradient(_wrong_by_half)(function(x, a, b))

    causes = _checked(spoilt, a, 0.5).tensors.query("verdict == 'fail'")["cause"]
    assert causes.str.contains("custom gradient of '_wrong_by_half'").any()


@pytest.mark.parametrize("a", [_with_zero(1.5), 1.5], ids=["by zero", "by others"])
def test_where_a_quotient_jumps_no_gradient_is_called_wrong(a):
    run = _checked(lambda x, a, b: tf.math.divide_no_nan(x * b, a), a, 0.5)
    assert run.verdict == "pass", run.run["failures"]
    assert not run.tensors.query("stage == 'gradient'")["cause"].any()


def test_an_eager_tape_past_a_dead_branch_passes():
    keras.utils.set_random_seed(0)
    function, a = LIMITS["a root in the branch that is not taken"]
    model = keras.Sequential([keras.Input((4,)), Applied(function, a, 0.5), layers.Dense(1)])
    loss_fn, weights = keras.losses.MeanSquaredError(), model.trainable_variables
    with tf.GradientTape() as tape:
        loss = loss_fn(Y, model(X, training=True))
    found = tape.gradient(loss, weights)
    run = gradaudit.audit_gradients(loss_fn, weights, found, model=model, x=X, y=Y)
    assert run.verdict == "pass", run.run["failures"]
