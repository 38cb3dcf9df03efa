"""Every op at the points where it is not smooth: an infinite slope, not a number, an exact tie."""

import functools
import sys

import numpy as np
import pytest
import tensorflow as tf

from gradaudit.errors import UnsupportedModelError
from gradaudit.numerics import Plain, Rounding, numbers
from gradaudit.tracing import trace
from gradaudit.tracing.interpreter import Interpretation
from gradaudit.tracing.tf_ops import table
from gradaudit.tracing.tf_ops.table import Entry
from gradaudit.tracing.values import is_discrete
from op_cases import CASES, NO_SUBGRADIENT, SINGLE, SINGULAR, UNDERIVED, WITHOUT_NAN

EVERY = {**CASES, **SINGLE, **UNDERIVED}
ARITHMETICS = {"float64": Plain(np.float64), "float32": Plain(np.float32), "rounding": Rounding()}


def _run(function, xs, cotangents, arithmetic=ARITHMETICS["float64"], dtype="float32"):
    """Return the outputs, and the cotangents of the inputs.

    cotangents: a function of the outputs' shape.
    """
    traced = trace(function, [np.asarray(x, dtype) for x in xs], [])
    return _rerun(traced, xs, cotangents, arithmetic, dtype)


def _rerun(traced, xs, cotangents, arithmetic=ARITHMETICS["float64"], dtype="float32"):
    with np.errstate(all="ignore"):
        ys, vjp = traced.run([arithmetic.array(x, dtype) for x in xs], None, arithmetic, False)
        dys = [None if is_discrete(y) else arithmetic.array(cotangents(y.shape), dtype) for y in ys]
        return ys, vjp(dys).of_inputs


def _is_exactly_zero(cotangent):
    parts = [getattr(cotangent, part, None) for part in ("variance", "kink")]
    return not any(np.any(part) for part in (numbers(cotangent), *parts) if part is not None)


def _stays_zero(function, xs, arithmetic):
    _, back = _run(function, xs, np.zeros, arithmetic)
    return all(_is_exactly_zero(dx) for dx in back if dx is not None)


@pytest.mark.parametrize("arithmetic", ARITHMETICS.values(), ids=ARITHMETICS)
@pytest.mark.parametrize("kind", SINGULAR)
def test_a_zero_cotangent_stays_exactly_zero_where_the_slope_is_infinite(kind, arithmetic):
    assert _stays_zero(*SINGULAR[kind], arithmetic)


def test_a_product_with_an_infinite_slope_is_noticed(monkeypatch):
    def root(node, x):
        y = np.sqrt(x)
        return y, lambda dy: dy * (0.5 / y)

    _plant(monkeypatch, "Sqrt", root)
    assert not any(_stays_zero(*SINGULAR["Sqrt"], each) for each in ARITHMETICS.values())


def _plant(monkeypatch, kind, entry):
    monkeypatch.setitem(table._OPS, kind, Entry(entry, False, False))


@functools.cache
def _with_infinite_slopes():
    """Return the types of ops whose VJP is not finite somewhere though all that it is given is."""
    found = set()

    class Probing(Interpretation):
        def _apply(self, node, given):
            made, vjp = super()._apply(node, given)
            floats = [x for x in given if isinstance(x, np.ndarray) and x.dtype.kind == "f"]
            if vjp is None or not any(node.wanted) or not _finite(floats):
                return made, vjp

            def probed(*dys):
                back = vjp(*dys)
                parts = back if isinstance(back, tuple) else (back,)
                if _finite(dys) and not _finite(parts):
                    found.add(node.op.kind)
                return back

            return made, probed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["gradaudit.tracing.trace"], "Interpretation", Probing)
        for name, (function, shapes, _) in EVERY.items():
            if name == "a length that values decide":  # of such values there is none
                continue
            traced = trace(function, [np.zeros(shape, np.float32) for shape in shapes], [])
            for value in (0.0, 1.0, -1.0, 1000.0):
                try:
                    _rerun(traced, [np.full(shape, value) for shape in shapes], np.ones)
                except UnsupportedModelError:  # a matrix that is singular
                    assert name in ("determinants", "matrix equations")
    return found


def _finite(arrays):
    floats = [x for x in arrays if isinstance(x, np.ndarray) and x.dtype.kind == "f"]
    return all(np.isfinite(x).all() for x in floats)


def test_every_op_whose_slope_may_be_infinite_is_in_the_table():
    assert _with_infinite_slopes() - {"While", "PartitionedCall"} <= SINGULAR.keys()
    assert {"Sqrt", "Pow", "RealDiv", "Xlogy"} <= _with_infinite_slopes()


def _nan_at(name, which):
    """Return the outputs, TensorFlow's and ours, where an input is not a number."""
    function, shapes, _ = EVERY[name]
    dtype = np.float64 if name in CASES else np.float32
    rng = np.random.default_rng(0)
    xs = [rng.uniform(0.3, 0.9, shape).astype(dtype) for shape in shapes]
    xs[which][...] = np.nan
    theirs = tf.nest.flatten(function(*map(tf.constant, xs)))
    ours, _ = _run(function, xs, np.zeros, dtype=dtype)
    return ours, [np.asarray(y) for y in theirs]


def _lets_nan_through(name):
    for which in range(len(EVERY[name][1])):
        ours, theirs = _nan_at(name, which)
        places = [np.isnan(numbers(y)) for y in ours if not is_discrete(y)]
        pairs = zip(places, [np.isnan(y) for y in theirs if y.dtype.kind == "f"], strict=True)
        if not any(p.any() for p in places) or not all((p | ~t).all() for p, t in pairs):
            return False
    return True


@pytest.mark.parametrize("name", [name for name in EVERY if name not in WITHOUT_NAN])
def test_nan_goes_through(name):
    assert _lets_nan_through(name)


def test_an_op_that_takes_a_side_for_nan_is_noticed(monkeypatch):
    def relu(node, z):
        return np.where(z > 0, z, 0.0), lambda dy: np.where(z > 0, dy, 0.0)

    assert _lets_nan_through("Relu")
    _plant(monkeypatch, "Relu", relu)
    assert not _lets_nan_through("Relu")


def _beyond_the_differences(name, value):
    """Return the partial derivatives beyond the one-sided differences where all inputs are equal.

    A subgradient of a convex or a concave function is between them. Where the function jumps there
    are no differences.
    """
    function, shapes, _ = EVERY[name]
    dtype = "float64" if name in CASES else "float32"
    xs, h = [np.full(shape, value) for shape in shapes], 2.0**-20 if name in CASES else 2.0**-10
    weights = lambda shape: np.random.default_rng(0).uniform(0.5, 1.5, shape)  # noqa: E731
    traced = trace(function, [np.asarray(x, dtype) for x in xs], [])
    _, back = _rerun(traced, xs, weights, dtype=dtype)

    def total(xs):
        ys, _ = traced.run(xs, None, ARITHMETICS["float64"], False)
        return sum(np.sum(y * weights(y.shape)) for y in ys if not is_discrete(y))

    at, beyond = total(xs), []
    for i, x in enumerate(xs):
        gradient = np.zeros(x.shape) if back[i] is None else back[i]
        for place in list(np.ndindex(x.shape))[:3]:
            moved = [[np.array(each) for each in xs] for _ in range(2)]
            for side, each in zip((1, -1), moved, strict=True):
                each[i][place] += side * h
            sides = [(total(moved[0]) - at) / h, (at - total(moved[1])) / h]
            bend = 10 * h * (1 + np.max(np.abs([*sides, gradient[place]])) ** 2)
            is_jump = not np.isfinite(sides).all() or np.max(np.abs(sides)) > 0.1 / h
            if not is_jump and not min(sides) - bend <= gradient[place] <= max(sides) + bend:
                beyond.append((i, place, gradient[place], sides))
    return beyond


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("name", [name for name in EVERY if name not in NO_SUBGRADIENT])
def test_the_gradient_at_a_tie_is_a_subgradient(name, value):
    with np.errstate(all="ignore"):
        assert _beyond_the_differences(name, value) == []


def test_a_gradient_that_is_no_subgradient_is_noticed(monkeypatch):
    def relu(node, z):
        return np.maximum(z, 0.0), lambda dy: np.where(z == 0, 2.0, 1.0 * (z > 0)) * dy

    _plant(monkeypatch, "Relu", relu)
    assert _beyond_the_differences("Relu", 0.0)
    assert not _beyond_the_differences("Relu", 1.0)
