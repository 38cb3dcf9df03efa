"""Every entry of the table of ops beside TensorFlow's own forward and tape, in float64."""

import re

import numpy as np
import pytest
import tensorflow as tf

from gradaudit.errors import UnsupportedModelError
from gradaudit.numerics import Plain, Reordering, Rounding
from gradaudit.tracing import trace
from gradaudit.tracing.tf_ops.table import Entry, all_ops, find_op
from op_cases import CASES, MATRIX, NOT_ALONE, POSITIVE, REAL, SINGLE, UNDERIVED, UNIT
from suite import by_default

EVERY = {**CASES, **SINGLE, **UNDERIVED}


def _inputs(name, dtype=np.float64):
    function, shapes, of = EVERY[name]
    rng = np.random.default_rng(0)
    draw = {
        REAL: rng.standard_normal,
        POSITIVE: lambda shape: rng.uniform(0.3, 2.0, shape),
        UNIT: lambda shape: rng.uniform(-0.9, 0.9, shape),
    }[of]
    return function, [np.asarray(draw(shape), dtype) for shape in shapes]


def _run(traced, xs, arithmetic, dtype="float64"):
    given = [arithmetic.array(x, dtype) for x in xs]
    ys, vjp = traced.run(given, None, arithmetic, False)
    dys = [np.random.default_rng(1).standard_normal(y.shape) for y in ys]
    dys = [np.asarray(dy, dtype) for dy in dys]
    return ys, dys, vjp([arithmetic.array(dy, dtype) for dy in dys])


def _tape(function, xs, dys):
    """Return TensorFlow's outputs, and its gradient of Σ y dy, 0 where it has none."""
    tensors = [tf.constant(x) for x in xs]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        ys = tf.nest.flatten(function(*tensors))
        given = [tf.cast(dy, y.dtype) for y, dy in zip(ys, dys, strict=True)]
    try:
        back = tape.gradient(ys, tensors, given, unconnected_gradients="zero")
    except LookupError:  # TensorFlow has no gradient of the op
        back = [tf.zeros_like(x) for x in tensors]
    return [np.asarray(y) for y in ys], [np.asarray(dx) for dx in back]


@pytest.mark.parametrize("name", [*CASES, *SINGLE])
def test_forward_and_vjp_are_the_tape_s(name):
    dtype = "float64" if name in CASES else "float32"
    function, xs = _inputs(name, dtype)
    ys, dys, back = _run(trace(function, xs, []), xs, Plain(np.float64), dtype)
    theirs, expected = _tape(function, xs, dys)
    relative, absolute = (1e-11, 1e-12) if name in CASES else (1e-5, 2e-6)
    for y, right in zip(ys, theirs, strict=True):
        np.testing.assert_allclose(y, right, rtol=relative, atol=absolute)
    for dx, right in zip(back.of_inputs, expected, strict=True):
        dx = np.zeros(right.shape) if dx is None else dx
        assert dx.shape == right.shape
        np.testing.assert_allclose(dx, right, rtol=relative, atol=absolute)


@pytest.mark.parametrize("name", UNDERIVED)
def test_where_tensorflow_s_gradient_is_not_the_derivative_ours_is(name):
    function, (x,) = _inputs(name)
    h, traced = 1e-6, trace(function, [x], [])
    (y,), (dy,), back = _run(traced, [x], Plain(np.float64))
    direction = np.random.default_rng(2).standard_normal(x.shape)
    ends = [
        np.sum(_run(traced, [x + s * h * direction], Plain(np.float64))[0][0] * dy) for s in (1, -1)
    ]
    difference = (ends[0] - ends[1]) / (2 * h)
    assert np.sum(back.of_inputs[0] * direction) == pytest.approx(difference, rel=1e-8)
    (theirs,), (gradient,) = _tape(function, [x], [dy])
    np.testing.assert_allclose(y, theirs, rtol=1e-5, atol=1e-5)
    assert np.sum(gradient * direction) != pytest.approx(difference, rel=1e-3)


@pytest.mark.parametrize("name", by_default(EVERY, chosen=list(EVERY)[::3]))
def test_rounding_errors_are_those_of_numpy_and_of_tensorflow_in_float32(name):
    function, xs = _inputs(name, np.float32)
    traced = trace(function, xs, [])
    with np.errstate(all="ignore"):
        ys, dys, back = _run(traced, xs, Rounding(), "float32")
        narrow, _, narrow_back = _run(traced, xs, Plain(np.float32), "float32")
        again, _, again_back = _run(traced, xs, Reordering(1), "float32")
    theirs, gradients = _tape(function, xs, dys)
    least, _, least_back = _bounded(traced, xs)
    gradients = gradients if name not in UNDERIVED else narrow_back.of_inputs
    made = [*ys, *back.of_inputs]
    twins = zip([*narrow, *narrow_back.of_inputs], [*again, *again_back.of_inputs], strict=True)
    found = zip(made, twins, [*theirs, *gradients], strict=True)
    for y, bound in zip(made, [*least, *least_back.of_inputs], strict=True):
        assert (y is None) == (bound is None)
        if y is not None:
            apart = False if y.kink is None else y.kink > 0
            assert (~(bound.sigma > y.sigma * (1 + 1e-5)) | apart).all()  # NaN settles nothing
            slack = 1e-6 * y.sigma + 1e-12 * np.abs(y.value)
            assert ((np.abs(bound.value - y.value) <= slack) | apart).all()
    for y, several, tensorflow in found:
        for twin in several:
            assert (y is None) == (twin is None)
            if y is not None:
                assert twin.dtype == np.float32
                assert (np.abs(np.asarray(twin) - y.value) <= y.doubt + 1e-30).all()
        if y is not None:
            assert (np.abs(tensorflow - y.value) <= y.doubt + 1e-30).all()


def _bounded(traced, xs):
    with np.errstate(all="ignore"):
        return _run(traced, xs, Rounding(bound=True), "float32")


def _is_documented(entry):
    """Return whether a docstring begins with a formula, and has that of a cotangent, or of none."""
    text = entry.function.__doc__ or ""
    has_formula = re.match(r"(Compute|Apply) .*\S = ?\S", text.partition("\n")[0])
    return bool(
        has_formula and re.search(r"\bd\w[\w.]* = |\bd\w+\[.*\] = |No gradient passes", text)
    )


def test_every_entry_says_its_formula_and_its_vjp():
    assert [kind for kind in all_ops() if not _is_documented(find_op(kind))] == []


@pytest.mark.parametrize("text", [None, "Add two tensors.", "Compute y = a + b.", "da = dy"])
def test_an_entry_without_a_formula_or_a_vjp_is_noticed(text):
    def entry(node, a, b):
        return a + b, lambda dy: (dy, dy)

    entry.__doc__ = text
    assert not _is_documented(Entry(entry, False, False))


def test_every_entry_is_met_by_a_case():
    met = set()
    for name in EVERY:
        function, xs = _inputs(name, "float64" if name in CASES else "float32")
        graph = tf.function(function, autograph=False).get_concrete_function(*xs).graph
        graphs = [graph, *(f.graph for f in graph._functions.values() if hasattr(f, "graph"))]
        met |= {op.type for each in graphs for op in each.get_operations()}
    assert all_ops().keys() - met == NOT_ALONE & all_ops().keys() - met
    assert not NOT_ALONE - all_ops().keys()


def test_a_gradient_through_complex_numbers_is_not_dropped():
    def function(x):
        return tf.math.real(tf.signal.rfft2d(x))

    with pytest.raises(UnsupportedModelError, match=r"\(RFFT2D\) .* has no entry"):
        _run(trace(function, [np.ones(MATRIX)], []), [np.ones(MATRIX)], Plain(np.float64))


def test_an_op_without_an_entry_is_named_with_its_line():
    def function(x):
        return tf.math.real(tf.exp(tf.complex(x, x)))

    with pytest.raises(UnsupportedModelError, match=r"\(Exp\) at .*test_tf_ops\.py:\d+ .* complex"):
        _run(trace(function, [np.ones(3, np.float32)], []), [np.ones(3)], Plain(np.float32))
