"""Another subgradient at an exact tie is a kink, and a wrong gradient there still fails."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import gradaudit
from suite import by_default

X = np.array([[2, 2, 1, 0], [1, 3, 0, 3], [0, -1, 0, 2], [0, 0, 0, 0]], np.float32)


def written(function, gradient):
    """Return a function of (x, scale) whose gradient is written by hand, times a scale."""

    def of_scale(scale):
        @tf.custom_gradient
        def by_hand(x):
            return function(x), lambda dy: scale * gradient(x, dy)

        return by_hand

    return of_scale


def rows(x):
    return tf.reduce_max(x, axis=-1, keepdims=True)


def ones_at(place, x):
    return tf.one_hot(place, x.shape[-1], dtype=x.dtype)


def first(x, dy):
    return dy * ones_at(tf.argmax(x, -1), x)


def last(x, dy):
    return dy * tf.reverse(ones_at(tf.argmax(tf.reverse(x, [-1]), -1), x), [-1])


def larger(x):
    return tf.maximum(x[:, :2], x[:, 2:])


def halves(x, dy):
    a, b = x[:, :2], x[:, 2:]
    part = tf.where(a == b, 0.5, tf.where(a > b, 1.0, 0.0))
    return tf.concat([dy * part, dy * (1 - part)], 1)


def second(x, dy):
    part = tf.where(x[:, :2] > x[:, 2:], 1.0, 0.0)
    return tf.concat([dy * part, dy * (1 - part)], 1)


def pooled(x):
    return tf.nn.max_pool1d(x[:, :, None], 2, 2, "VALID")[:, :, 0]


def in_windows(x, dy):
    pairs = tf.reshape(x, (-1, 2, 2))
    winners = tf.cast(pairs == tf.reduce_max(pairs, -1, keepdims=True), x.dtype)
    parts = winners / tf.reduce_sum(winners, -1, keepdims=True)
    return tf.reshape(dy[:, :, None] * parts, tf.shape(x))


def minus_one_at_zero(z, dy):
    return tf.where(z > 0, dy, -dy)


def one_at_zero(z, dy):
    return tf.where(z >= 0, dy, 0.0)


CASES = {
    # name: (function, another subgradient, the op that is named, the choice)
    "max, first": (rows, first, "Max", "the first of equal values takes all"),
    "max, last": (rows, last, "Max", "the last of equal values takes all"),
    "maximum, halves": (larger, halves, "Maximum", "equal values take equal parts"),
    "maximum, second": (larger, second, "Maximum", "the derivative of the other side"),
    "pooling, shared": (pooled, in_windows, "MaxPool", "equal values take equal parts"),
    "relu": (
        tf.nn.relu,
        one_at_zero,
        "Relu",
        "the derivative of the other side",
    ),
    "abs, the slope -1": (tf.abs, minus_one_at_zero, "Abs", "the slope −1"),
    "abs": (
        tf.abs,
        lambda x, dy: tf.where(x >= 0, dy, -dy),
        "Abs",
        "the derivative of the other side",
    ),
}


def chosen(z):
    return tf.where(z > 0, z, tf.zeros_like(z))


def two_largest(x):
    return tf.math.top_k(x, 2).values


def last_two(x, dy):
    places = x.shape[-1] - 1 - tf.math.top_k(tf.reverse(x, [-1]), 2).indices
    return tf.reduce_sum(tf.one_hot(places, x.shape[-1]) * dy[..., None], -2)


PAIRS = tf.constant([0, 0, 1, 1])


def of_pairs(x):
    return tf.ensure_shape(tf.transpose(tf.math.segment_max(tf.transpose(x), PAIRS)), (None, 2))


def first_of_pairs(x, dy):
    is_first = tf.concat([x[:, 0::2] >= x[:, 1::2], x[:, 0::2] < x[:, 1::2]], -1)
    return tf.repeat(dy, 2, -1) * tf.cast(tf.gather(is_first, [0, 2, 1, 3], axis=-1), dy.dtype)


def beside(other):
    """Return what makes of a function its sum with an ordinary op that meets ties, too."""
    return lambda by_hand: lambda z: by_hand(z) + 0.5 * other(tf.reverse(z, [-1]))


ALONE = {
    # name: (function, another subgradient, what the ordinary op is, the op that is named)
    "relu beside a relu": (tf.nn.relu, one_at_zero, tf.nn.relu, "Relu"),
    "relu beside a jump": (tf.nn.relu, one_at_zero, tf.sign, "Relu"),
    "relu beside a comparison that jumps": (
        tf.nn.relu,
        one_at_zero,
        lambda z: tf.cast(z > 0, z.dtype),
        "Relu",
    ),
    "max beside a max": (rows, first, rows, "Max"),
    "where": (chosen, one_at_zero, tf.zeros_like, "Greater"),
    "where beside a relu": (chosen, one_at_zero, tf.nn.relu, "Greater"),
    "top_k": (two_largest, last_two, lambda z: 0 * rows(z), "TopKV2"),
    "segments": (of_pairs, first_of_pairs, lambda z: 0 * rows(z), "SegmentMax"),
}


@pytest.mark.parametrize("name", by_default(ALONE, ["where"]))
def test_one_op_may_choose_otherwise_than_the_ops_beside_it(name):
    function, gradient, other, op = ALONE[name]
    with_other = beside(other)
    by_hand = written(function, gradient)
    bias = checked(with_other(by_hand(1.0)), X).loc["before/bias"]
    assert bias["verdict"] == "kink"
    assert f"{op} in the layer 'choice'" in bias["cause"]
    assert ", at [" in bias["cause"]
    assert checked(with_other(by_hand(1.5)), X).loc["before/bias", "verdict"] == "fail"
    assert set(checked(with_other(function), X)["verdict"]) == {"pass"}


def checked(function, x):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    h = keras.layers.Dense(
        4, kernel_initializer="identity", bias_initializer="zeros", name="before"
    )(inputs)
    h = keras.layers.Lambda(function, name="choice")(h)
    model = keras.Model(inputs, keras.layers.Dense(1, name="after")(h))
    model.compile("sgd", "mse")
    run = gradaudit.check(model, x, np.ones((len(x), 1), np.float32))
    return run.tensors.query("stage == 'gradient'").set_index("path")


SOME = ("max, first", "relu")


@pytest.mark.parametrize("name", by_default(CASES, SOME))
def test_any_subgradient_at_an_exact_tie_is_a_kink_and_is_named(name):
    function, gradient, op, choice = CASES[name]
    by_hand = written(function, gradient)
    found = checked(by_hand(1.0), X)
    bias = found.loc["before/bias"]
    assert bias["verdict"] == "kink"
    assert choice in bias["cause"]
    assert f"{op} in the layer 'choice'" in bias["cause"]
    assert "TensorFlow" in bias["cause"]
    assert set(found["verdict"]) <= {"pass", "kink"}
    assert checked(by_hand(1.5), X).loc["before/bias", "verdict"] == "fail"
    assert set(checked(function, X)["verdict"]) == {"pass"}


def test_a_mixture_of_subgradients_is_a_kink():
    """The slope 1/2 at 0 is between 0 and 1, and 3/2 is not."""

    def slope(at_zero):
        return lambda x, dy: tf.where(x > 0, dy, tf.where(x == 0, at_zero * dy, 0.0))

    found = checked(written(tf.nn.relu, slope(0.5))(1.0), X)
    assert found.loc["before/bias", "verdict"] == "kink"
    assert (
        "a mixture, 0.5 of: the derivative of the other side" in found.loc["before/bias", "cause"]
    )
    assert checked(written(tf.nn.relu, slope(1.5))(1.0), X).loc["before/bias", "verdict"] == "fail"


def test_an_error_beside_ties_still_fails():
    found = checked(written(rows, lambda x, dy: dy * tf.ones_like(x))(1.0), X)
    assert found.loc["before/bias", "verdict"] == "fail"


def test_a_choice_within_rounding_errors_names_its_op():
    """0.1 · 3 − 0.3 is 0 up to rounding: float32 and float64 may take different sides."""
    x = np.full((4, 4), 0.1, np.float32)
    x[0] = [1, 2, 3, 4]

    by_hand = written(tf.nn.relu, lambda z, dy: dy)(1.0)
    found = checked(lambda z: by_hand(tf.reduce_sum(z[:, :3], -1, keepdims=True) - 0.3), x)
    kinked = found[found["verdict"] != "pass"]
    assert len(kinked)
    assert kinked["cause"].str.contains("Relu in the layer 'choice'").all()


def two_branches(of_first):
    """Return a model of two inputs, and data: logaddexp meets equal values in the first branch."""
    keras.utils.set_random_seed(1)
    inputs = [keras.Input((4,)), keras.Input((4,))]
    first, second = (
        keras.layers.Dense(4, kernel_initializer="identity", name=name)(x)
        for name, x in zip(("before", "beside"), inputs, strict=True)
    )
    h = keras.layers.Lambda(of_first)(first)
    g = keras.layers.Lambda(tf.nn.relu)(second)
    model = keras.Model(inputs, [keras.layers.Dense(1)(h), keras.layers.Dense(1)(g)])
    model.compile("sgd", ["mse", "mse"])
    x = np.array([[2, 1, 2, 1], [1, 3, 1, 3], [0, -1, 0, -1]], np.float32)
    return model, [x, X[:3]], [np.ones((3, 1), np.float32)] * 2


@pytest.mark.long
def test_a_tie_elsewhere_excuses_no_wrong_gradient_of_tensorflow():
    run = gradaudit.check(*two_branches(lambda z: keras.ops.logaddexp(z[:, :2], z[:, 2:])))
    found = run.tensors.set_index("path")["verdict"]
    assert found.loc["before/bias"].tolist() == ["fail", "pass"]
    assert "fail" not in found.loc["beside/bias"].tolist()


def test_a_choice_without_a_finite_gradient_excuses_nothing():
    by_hand = written(lambda z: z + 0.0, lambda z, dy: -dy)

    def guarded(z):
        return by_hand(1.0)(tf.where(z > 0, tf.sqrt(z), tf.zeros_like(z)))

    x = np.array([[2, 2, 1, 0.5], [1, 3, 0.3, 3], [0, 0, 0, 0]], np.float32)
    assert checked(guarded, x).loc["before/bias", "verdict"] == "fail"


def test_what_is_compared_must_depend_on_weights():
    """A label of 0 is no kink of the weights, although at p = 1/2 both branches give one loss."""

    @tf.custom_gradient
    def entropy(y, p):
        return tf.where(y > 0, -tf.math.log(p), -tf.math.log(1 - p)), lambda dy: (None, -dy / p)

    keras.utils.set_random_seed(0)
    head = keras.layers.Dense(1, activation="sigmoid", kernel_initializer="zeros", name="head")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, activation="tanh"), head])
    model.compile("sgd", lambda y, p: tf.reduce_mean(entropy(y, p)))
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((8, 3)), rng.random((8, 1)) > 0.5
    run = gradaudit.check(model, x.astype(np.float32), y.astype(np.float32))
    assert (
        run.tensors.set_index("path").filter(like="head/bias", axis=0)["verdict"].iloc[0] == "fail"
    )


def test_choices_that_jump_together_excuse_nothing():
    def hat(z):
        above, below = tf.cast(z > 0, z.dtype), tf.cast(z < 0, z.dtype)
        return above * below * (5.0 + z) + tf.tanh(z)

    def off_at_zero(z, dy):
        return dy * (1 - tf.tanh(z) ** 2 + tf.cast(z == 0, z.dtype))

    found = checked(written(hat, off_at_zero)(1.0), X)
    assert found.loc["before/bias", "verdict"] == "fail"


def half_at_zero(z, dy):
    return dy * tf.where(z > 0, 1.0, tf.where(z == 0, 0.5, 0.0))


@pytest.mark.long
@pytest.mark.parametrize(("scale", "verdict"), [(1.0, "kink"), (2.0, "fail")])
def test_a_choice_by_which_a_step_cannot_be_run_is_left_out(scale, verdict):
    by_hand = written(tf.nn.relu, half_at_zero)(scale)

    def with_mask(z):
        return by_hand(z) + tf.reduce_sum(tf.boolean_mask(z, z > 0) * tf.boolean_mask(2 * z, z > 0))

    assert checked(with_mask, X).loc["before/bias", "verdict"] == verdict


@pytest.mark.long
def test_a_loop_that_a_choice_would_not_leave_does_not_hide_an_error():
    by_hand = written(lambda z: z + 0.0, lambda z, dy: dy)

    def with_loop(z, scale=1.0):
        return (
            by_hand(scale)(tf.tanh(z))
            + tf.while_loop(
                lambda v: tf.reduce_max(v) > 0.0, lambda v: (tf.nn.relu(v - 1.0),), (z,)
            )[0]
        )

    assert set(checked(with_loop, X)["verdict"]) <= {"pass", "kink"}
    wrong = checked(lambda z: with_loop(z, 2.0), X)
    assert wrong.loc["before/bias", "verdict"] == "fail"
