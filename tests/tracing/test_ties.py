"""What gradients beside an exact tie say of the gradient at the tie."""

import importlib

import numpy as np
import pytest
import tensorflow as tf

from gradaudit.numerics import Plain, Rounding, numbers
from gradaudit.tracing import trace
from gradaudit.tracing.beside import DIRECTIONS, STEPS, Sample, settle
from gradaudit.tracing.place import library_function_of
from gradaudit.tracing.values import is_discrete

X = np.zeros((3, 4))
TRACE = importlib.import_module("gradaudit.tracing.trace")


DOUBLE = Plain(np.float64)


def _gradients(function, x=X, arithmetic=DOUBLE):
    traced = trace(function, [np.asarray(x, np.float32)], [])
    ys, vjp = traced.run([arithmetic.array(x, "float32")], None, arithmetic, False)
    dys = [None if is_discrete(y) else arithmetic.array(np.ones(y.shape), "float32") for y in ys]
    back = vjp(dys)
    return back.of_inputs[0], {each.detail for each in back.passed_to_inputs}


def _halves(x):
    h = tf.nn.relu(tf.concat([x, -x], -1))
    return h[:, :4] - h[:, 4:]


SMOOTH = {
    "x in two halves of one op": (_halves, 1.0),
    "x in two halves": (lambda x: tf.nn.relu(x) - tf.nn.relu(-x), 1.0),
    "x as the larger and the smaller": (lambda x: tf.maximum(x, 0.0) + tf.minimum(x, 0.0), 1.0),
    "half of x beside |x| / 2": (lambda x: tf.nn.relu(x) - tf.abs(x) / 2, 0.5),
    "(1 − cos(x)) / x": (lambda x: tf.where(x == 0, 0.0, (1 - tf.cos(x)) / x), 0.5),
    "(exp(x) − 1) / x": (lambda x: tf.where(x == 0, 1.0, (tf.exp(x) - 1) / x), 0.5),
    "x log(2 + x) at 0": (lambda x: tf.where(x == 0, 0.0, x * tf.math.log(2 + x)), np.log(2)),
    "a condition turned round": (lambda x: tf.where(x != 0, 3 * x, x * x), 3.0),
}


@pytest.mark.parametrize("arithmetic", [Plain(np.float64), Plain(np.float32), Rounding()], ids=repr)
@pytest.mark.parametrize("name", SMOOTH)
def test_where_all_sides_agree_theirs_is_the_gradient(name, arithmetic):
    function, slope = SMOOTH[name]
    with np.errstate(all="ignore"):
        found, details = _gradients(function, arithmetic=arithmetic)
    np.testing.assert_allclose(numbers(found), slope, rtol=1e-5)
    assert details
    assert all("equal values, as at [0, 0]" in each for each in details)
    kink = getattr(found, "kink", None)
    assert kink is None or not kink.any()


KINKS = {
    "|x| in two halves of one op": lambda x: tf.reduce_sum(
        tf.nn.relu(tf.stack([x, -x])) * [[[1.0]], [[3.0]]], 0
    ),
    "rectifiers with zeros, one behind the other": lambda x: tf.nn.relu(
        tf.nn.relu(x + tf.roll(x, 1, 1)) @ tf.random.stateless_normal((4, 4), (0, 1)) - x
    ),
    "two kinks of which each direction turns one on": lambda x: (
        tf.nn.relu(x[:, :2] - x[:, 2:]) + tf.nn.relu(x[:, 2:] - x[:, :2])
    ),
    "kinks of many terms": lambda x: (
        tf.nn.relu(tf.reduce_sum(x) * 0 + x @ tf.random.stateless_normal((4, 4000), (0, 1)))
        + tf.abs(x[:, :1])
    ),
    "a rectifier behind others": lambda x: tf.nn.relu(
        tf.reduce_sum(tf.nn.relu(tf.reshape(x, [12])[1:])) * 5 + x[0, 0]
    ),
    "a kink beside another": lambda x: tf.abs(x) + tf.nn.relu(x),
    "a jump": lambda x: tf.where(x == 0, 5.0, 2 * x),
    "a mask beside what it masks": lambda x: (
        tf.where(tf.reduce_any(x != 0, -1, keepdims=True), x, 0.0),
        tf.reduce_any(x != 0, -1),
    ),
    "elements that tie, kept": lambda x: tf.boolean_mask(x, x == 0) * 2.0,
}


@pytest.mark.parametrize("name", KINKS)
def test_where_sides_differ_or_the_function_jumps_the_gradient_stays(name):
    function = KINKS[name]
    found, details = _gradients(function)
    with tf.GradientTape() as tape:
        x = tf.constant(X, tf.float32)
        tape.watch(x)
        y = function(x)
    floats = [each for each in tf.nest.flatten(y) if each.dtype.is_floating]
    np.testing.assert_allclose(found, tape.gradient(floats, x), rtol=1e-6)
    assert not details


def test_random_directions_alone_miss_a_rectifier_behind_others(monkeypatch):
    monkeypatch.setattr("gradaudit.tracing.beside.SINGLE", 0)
    _, details = _gradients(KINKS["a rectifier behind others"])
    assert details


def _refuse(beside):
    raise AssertionError(beside)


def test_a_single_kink_costs_no_further_run(monkeypatch):
    monkeypatch.setattr(TRACE, "settle", _refuse)
    x = np.where(np.arange(12).reshape(3, 4) == 5, 0.0, -1.0)
    found, details = _gradients(lambda x: tf.nn.relu(x) * 2, x)
    assert not found.any()
    assert not details
    with pytest.raises(AssertionError):
        _gradients(lambda x: tf.nn.relu(x) * 2)


def test_ties_of_one_op_cost_two_runs_beside_them_at_each_step(monkeypatch):
    runs = []

    def counted(beside):
        def noted(directions, size):
            runs.append(size)
            return beside(directions, size)

        return settle(noted)

    monkeypatch.setattr(TRACE, "settle", counted)
    _, details = _gradients(lambda x: tf.nn.relu(x) * 2)
    assert not details
    assert runs == [0.0, *(side * step for step in STEPS for side in (1, -1))]


def test_the_branch_of_an_equality_is_a_kink_where_nothing_agrees():
    found, details = _gradients(
        lambda x: tf.where(x == 0, 0 * x, tf.abs(x)) + 0 * x, arithmetic=Rounding()
    )
    assert not details
    assert (found.value == 0).all()
    np.testing.assert_allclose(found.kink, 1.0, rtol=1e-6)


def _settled(gradients):
    """Return what is settled of a gradient of 0 where those beside it come one after the other."""
    taken = iter(gradients)

    def beside(directions, size):
        gradient = next(taken) if size else 0.0
        return Sample([np.zeros(1)], {"w": np.full(1, gradient)})

    return settle(beside)


def test_all_directions_are_asked_before_a_gradient_is_replaced():
    assert _settled([2.0, 2.0 + 1e-5] * DIRECTIONS * 2)["w"].shift == pytest.approx(2.0, rel=1e-5)
    late = [2.0] * (2 * DIRECTIONS - 1) + [0.0]
    assert not _settled(late * 2)["w"].known.any()
    assert not _settled([np.nan] * 4)


def test_a_function_of_a_library_is_named_where_it_makes_several_ops():
    def function(x):
        return tf.nn.weighted_cross_entropy_with_logits(x, x, 2.0) + tf.abs(x)

    graph = tf.function(function, autograph=False).get_concrete_function(
        tf.TensorSpec((3,), tf.float32)
    )
    names = {op.name: library_function_of(op) for op in graph.graph.get_operations()}
    assert names["logistic_loss/Abs"] == "weighted_cross_entropy_with_logits_v2"
    assert names["Abs"] == ""
