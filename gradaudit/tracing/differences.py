"""Derivatives of ops that have no entry, by central differences in float64.

The Jacobian J is taken along one input at a time: per element if the op is elementwise, per row if
rows do not depend on each other, of the whole otherwise. Random directions decide which: along them
J must agree with differences.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gradaudit import keras_compat
from gradaudit.errors import UnsupportedModelError
from gradaudit.numerics import estimated, exact
from gradaudit.numerics.arithmetic import Array
from gradaudit.numerics.precision import binade
from gradaudit.tracing.evaluate import run

PYTHON = ("EagerPyFunc", "PyFunc", "PyFuncStateless")
STEP = 2.0**-16
"""Steps of differences over an input's size: rounding brings 1e-11, the third derivative 1e-10."""
MOST = 1024
"""Most inputs of one group along which differences are taken; an op with more is refused."""
JUMP = 1e-3
"""J jumps at a kink by more than this part of itself; less is curvature."""
AGREEMENT = 1e-9
"""In random directions J and differences agree to this relative accuracy, besides known errors."""


class Jacobian(NamedTuple):
    """dY / dX of groups of elements that do not depend on each other.

    All are (groups, outputs, inputs). value, error: of J. bend: derivative of each column of J by
    its own input. jump: by how much J jumps at x if x is a kink, such as 0 of relu.
    """

    value: np.ndarray
    error: np.ndarray
    bend: np.ndarray
    jump: np.ndarray


def by_differences(node: Any, *given: Any) -> tuple[tuple[Array, ...], Callable]:
    """Return an op's outputs and its VJP, as an entry does.

    The errors of y and of the cotangents have three parts: that of the differences, estimated with
    half the step; that of the inputs, carried through J; and that of the op and its gradient, the
    distance of TensorFlow's results in the step's precision and in float64.

    Raises:
        UnsupportedModelError: it does not run in float64, or no J is found.
    """
    places = [i for i, wanted in enumerate(node.wanted) if wanted]
    tensors = [node.op.operation.inputs[i] for i in places]
    outputs = [
        t for t, is_read in zip(node.op.operation.outputs, node.read, strict=True) if is_read
    ]
    if not all(t.dtype.is_floating for t in (*tensors, *outputs)):
        raise node.unsupported("has no entry in the table of ops")
    if node.op.kind.startswith(("Random", "StatelessRandom")):
        raise node.unsupported(
            "draws random numbers; their derivative by its parameters is not derived"
        )
    if any(given[i].size == 0 for i in places):
        raise node.unsupported("has no entry in the table of ops, and is given no elements")
    function = _Function(node, given, places)
    xs = [given[i] for i in places]
    numbers = [np.asarray(node.numbers(x), np.float64) for x in xs]
    made = function(numbers)
    if any((y != again).any() for y, again in zip(made, function(numbers), strict=True)):
        raise node.unsupported("returns other values for the same inputs")
    groups, jacobian = _found(node, function, numbers, made)
    one = node.run.arithmetic.array(np.ones(()), tensors[0].dtype.name)
    x = np.concatenate([x.reshape(groups, -1) for x in xs], axis=1)
    shift = np.expand_dims(x * one - exact(x), -1)  # 0, with the error of x
    slope = estimated(node.array(jacobian.value), jacobian.error, jacobian.jump)
    slope = slope + node.array(jacobian.bend) * np.swapaxes(shift, -1, -2)
    moved = _cut((slope @ shift)[..., 0], [y.shape for y in made])
    errors = _rounding(function(numbers, tensors[0].dtype), made)
    ys = iter(
        estimated(node.array(y), error) + shifted
        for y, error, shifted in zip(made, errors, moved, strict=True)
    )

    def vjp(*dys: Any) -> tuple:
        of_read = [dy for dy, is_read in zip(dys, node.read, strict=True) if is_read]
        dy = np.concatenate([dy.reshape(groups, -1) for dy in of_read], axis=1)
        dx = (np.swapaxes(slope, -1, -2) @ np.expand_dims(dy, -1))[..., 0]
        dxs = _cut(dx, [x.shape for x in numbers])
        errors = function.error_of_gradient(numbers, [node.numbers(dy) for dy in of_read])
        back: list[Any] = [None] * len(given)
        for place, part, error in zip(places, dxs, errors, strict=True):
            back[place] = estimated(part, error)
        return tuple(back)

    return tuple(next(ys) if is_read else np.zeros((), int) for is_read in node.read), vjp


def _rounding(narrow: Sequence[np.ndarray], wide: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the rounding error of each element, at least the root mean square of all, relative."""
    errors = []
    for found, right in zip(narrow, wide, strict=True):
        lost, size = np.abs(found.astype(np.float64) - right), binade(right)
        mean = (
            np.sqrt(np.mean(np.square(lost / np.where(size == 0, 1.0, size)))) if lost.size else 0
        )
        errors.append(np.maximum(lost, mean * size))
    return errors


def _found(
    node: Any, function: Callable, xs: list[np.ndarray], ys: list[np.ndarray]
) -> tuple[int, Jacobian]:
    """Return the number of groups of elements, and J of each.

    Raises:
        UnsupportedModelError: no J agrees with differences in random directions.
    """
    shapes, leads = {x.shape for x in (*xs, *ys)}, {x.shape[:1] for x in (*xs, *ys)}
    tried = {xs[0].size if len(shapes) == 1 else 1: None}
    if len(leads) == 1 and xs[0].ndim:
        tried[len(xs[0])] = None
    tried[1] = None
    for groups in sorted(tried, reverse=True):
        rows = _laid(xs, groups)
        if rows.shape[1] > MOST:
            continue

        def apart(rows: np.ndarray, groups: int = groups) -> np.ndarray:
            return _laid(function(_cut(rows, [x.shape for x in xs])), groups)

        jacobian = _jacobian(apart, rows)
        if _agrees(apart, rows, jacobian):
            return groups, jacobian
    raise node.unsupported(
        "has no entry in the table of ops, and no derivative by differences: "
        + (
            f"more than {MOST} of its inputs depend on each other"
            if sum(x.size for x in xs) > MOST
            else "it is not smooth"
        )
    )


def _jacobian(function: Callable, x: np.ndarray) -> Jacobian:
    y, columns = function(x), []
    sizes = np.maximum(np.abs(x), np.sqrt(np.mean(np.square(x))) or 1.0)
    for j in range(x.shape[1]):
        h = np.zeros(x.shape)
        h[:, j] = STEP * sizes[:, j]
        size = h[:, j : j + 1]
        found, error, second, jump = _difference(function, x, y, h)
        is_jump = jump > JUMP * np.abs(found) + 100 * error
        bend = np.where(is_jump, 0.0, second / np.square(size))
        columns.append((found / size, error / size, bend, np.where(is_jump, jump / size, 0.0)))
    return Jacobian(*(np.stack(part, -1) for part in zip(*columns, strict=True)))


def _difference(
    function: Callable, x: np.ndarray, y: np.ndarray, h: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return J h by steps of h and h / 2 (L. F. Richardson, 1911), its error, y″ h², and its jump.

    The second difference falls to a quarter with half the step; at a kink it falls to a half.
    """
    ahead, behind = function(x + h), function(x - h)
    near, back = function(x + h / 2), function(x - h / 2)
    whole, half = (ahead - behind) / 2, near - back
    rounding = np.finfo(float).eps * np.maximum(np.abs(ahead), np.abs(behind))
    second = ahead - 2 * y + behind
    jump = np.abs(4 * (near - 2 * y + back) - second)
    return (4 * half - whole) / 3, np.abs(whole - half) + rounding, second, jump


def _agrees(function: Callable, x: np.ndarray, jacobian: Jacobian) -> bool:
    rng, y = np.random.default_rng(0), function(x)
    for _ in range(2):
        v = STEP * np.sqrt(np.mean(np.square(x)) or 1.0) * rng.standard_normal(x.shape)
        found, error, *_ = _difference(function, x, y, v)
        expected = (jacobian.value @ v[..., None])[..., 0]
        size = (np.abs(jacobian.value) @ np.abs(v)[..., None])[..., 0]
        error = error + ((jacobian.error + jacobian.jump) @ np.abs(v)[..., None])[..., 0]
        if not (np.abs(found - expected) <= AGREEMENT * size + 4 * error).all():
            return False
    return True


def _laid(arrays: Sequence[np.ndarray], groups: int) -> np.ndarray:
    return np.concatenate([a.reshape(groups, -1) for a in arrays], axis=1)


def _cut(laid: Array, shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    sizes = [math.prod(shape) // len(laid) for shape in shapes]
    ends = np.cumsum(sizes).tolist()
    spans = zip([0, *ends], ends, shapes, strict=False)
    return [laid[:, start:end].reshape(shape) for start, end, shape in spans]


class _Function:
    """An op as a function of the inputs that have a gradient, in float64 or another precision."""

    def __init__(self, node: Any, given: Sequence[Any], places: Sequence[int]) -> None:
        self._node, self._places = node, places
        self._is_float = [t.dtype.is_floating for t in node.op.operation.inputs]
        self._given = [
            np.asarray(node.numbers(x), np.float64) if f else node.whole(x)
            for x, f in zip(given, self._is_float, strict=True)
        ]

    def __call__(self, xs: Sequence[np.ndarray], dtype: tf.DType = tf.float64) -> list[np.ndarray]:
        return [np.asarray(y) for y in self._run(xs, dtype)]

    def error_of_gradient(
        self, xs: Sequence[np.ndarray], dys: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """Return the rounding error of TensorFlow's own gradient of the op, right or wrong."""
        dtype = self._node.op.operation.inputs[self._places[0]].dtype
        return _rounding(*(self._gradient(xs, dys, each) for each in (dtype, tf.float64)))

    def _gradient(
        self, xs: Sequence[np.ndarray], dys: Sequence[np.ndarray], dtype: tf.DType
    ) -> list[np.ndarray]:
        """Return TensorFlow's gradient in a precision; zeros where it has none."""
        tensors = [tf.constant(x, dtype) for x in xs]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            ys = self._run(tensors, dtype)
        try:
            back = tape.gradient(ys, tensors, [tf.constant(dy, dtype) for dy in dys])
        except LookupError:  # the op has no gradient in TensorFlow
            back = [None] * len(tensors)
        except (TypeError, ValueError, tf.errors.OpError) as error:
            raise self._refused(f"its gradient does not run in {dtype.name}", error) from error
        pairs = zip(back, xs, strict=True)
        return [
            np.zeros(x.shape) if dx is None else np.asarray(tf.convert_to_tensor(dx))
            for dx, x in pairs
        ]

    def _run(self, xs: Sequence[Any], dtype: tf.DType) -> list[tf.Tensor]:
        given = list(self._given)
        for place, x in zip(self._places, xs, strict=True):
            given[place] = x
        tensors = [
            tf.cast(x, dtype) if f else tf.constant(x)
            for x, f in zip(given, self._is_float, strict=True)
        ]
        node = self._node
        try:
            is_python = node.op.kind in PYTHON
            made = self._python(tensors) if is_python else run(node.op.operation, *tensors)
        except Exception as error:  # the user's function may raise anything
            raise self._refused(f"does not run in {dtype.name}", error) from error
        made = zip(tf.nest.flatten(made), node.read, strict=True)
        made = [tf.convert_to_tensor(y) for y, is_read in made if is_read]
        if any(y.dtype != dtype for y in made):
            raise node.unsupported(
                f"has no entry in the table of ops, and its outputs are not {dtype.name} where "
                "its inputs are"
            )
        return made

    def _refused(self, what: str, error: Exception) -> UnsupportedModelError:
        words = str(error).partition("\n")[0]
        return self._node.unsupported(
            f"has no entry in the table of ops, and {what}: {type(error).__name__}: {words}"
        )

    def _python(self, given: Sequence[tf.Tensor]) -> Any:
        eager = self._node.op.kind == "EagerPyFunc"
        token = self._node.attribute("token").decode()
        function = keras_compat.python_function(token, eager)
        if not eager:
            return function(*(x.numpy() for x in given))
        with tf.GradientTape() as tape:
            made = function(*given)
        if tape.watched_variables():
            names = ", ".join(v.name for v in tape.watched_variables())
            raise ValueError(f"it reads {names} within: pass the value as an argument")
        return made
