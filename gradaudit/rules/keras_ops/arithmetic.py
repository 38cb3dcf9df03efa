"""Operations of two operands: + − * / ** and the larger or smaller one.

One entry each: y = f(a, b), and the cotangents of a and of b from (a, b, y, dy). An operand may be
a number or an array of constants, to which no cotangent goes.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
from keras.src.ops import numpy as operations  # not exported: x + y makes an instance of Add

from gradaudit.rules.primitives.broadcasting import unbroadcast
from gradaudit.rules.registry import Case, rule

_SOURCE = "keras/src/ops/numpy.py"


def operands(call, x):
    """Return both operands, x1 and x2 by the names of the operation's arguments."""
    if isinstance(x, tuple):
        return x
    constant = call.array if "float" in call.dtype else np.asarray
    held = {
        name: float(value) if np.ndim(value) == 0 else constant(value)
        for name, value in call.arguments.items()
    }
    return held.get("x1", x), held.get("x2", x)


def cotangents(call, x, da: Callable, db: Callable):
    """Return the cotangents of those operands that are no constants, as x has them."""
    if isinstance(x, tuple):
        return da(), db()
    return db() if "x1" in call.arguments else da()


def _apply(operation, *tensors, **arguments):
    return operation(*tensors, **arguments)


def _before(operation, x, x1):
    return operation(x1, x)


def _after(operation, x, x2):
    return operation(x, x2)


def _cases(operation, inputs, numbers, ties):
    pair = ((3, 4), (3, 4))
    array = np.random.default_rng(0).uniform(0.5, 1.5, (3, 4)).astype(np.float32)
    made = functools.partial(Case, build=operation, inputs=inputs)
    cases = [
        made("two", shape=pair, apply=_apply),
        made("broadcast", shape=((2, 3, 4), (2, 1, 4)), apply=_apply),
        made("constants", shape=(3, 4), apply=_after, arguments={"x2": array}),
        made("of constants", shape=(3, 4), apply=_before, arguments={"x1": array}),
    ]
    if ties:
        cases.append(made("ties", shape=((5, 6), (5, 6)), apply=_apply, ties=True))
    for number in numbers:
        cases.append(made(f"x, {number}", shape=(3, 4), apply=_after, arguments={"x2": number}))
    cases.append(made("0.7, x", shape=(3, 4), apply=_before, arguments={"x1": 0.7}))
    return cases


def _binary(operation, formula, vjps, f, da, db, *, inputs="real", numbers=(2.0, -0.3), ties=False):
    def apply(call, x):
        a, b = operands(call, x)
        y = f(a, b)
        shapes = [getattr(operand, "shape", ()) for operand in (a, b)]

        def vjp(dy):
            return cotangents(
                call,
                x,
                lambda: unbroadcast(da(a, b, y, dy), shapes[0]),
                lambda: unbroadcast(db(a, b, y, dy), shapes[1]),
            ), {}

        return y, vjp

    apply.__name__ = operation.__name__
    apply.__doc__ = (
        f"Apply y = {formula}, elementwise.\n\n"
        "Shapes: a and b broadcast to y.\n"
        f"VJP: {vjps}; summed over the axes of broadcasting.\n"
        f"Kinks: {'ties, in which a takes all of dy' if ties else 'none'}."
    )
    rule(operation, cases=_cases(operation, inputs, numbers, ties), source=_SOURCE)(apply)


_binary(
    operations.Add,
    "a + b",
    "da = dy; db = dy",
    lambda a, b: a + b,
    lambda a, b, y, dy: dy,
    lambda a, b, y, dy: dy,
)
_binary(
    operations.Subtract,
    "a − b",
    "da = dy; db = −dy",
    lambda a, b: a - b,
    lambda a, b, y, dy: dy,
    lambda a, b, y, dy: -dy,
)
_binary(
    operations.Multiply,
    "a b",
    "da = b dy; db = a dy",
    lambda a, b: a * b,
    lambda a, b, y, dy: dy * b,
    lambda a, b, y, dy: dy * a,
)
for _operation in (operations.TrueDivide, operations.Divide):
    _binary(
        _operation,
        "a / b",
        "da = dy / b; db = −a dy / b²",
        lambda a, b: a / b,
        lambda a, b, y, dy: dy / b,
        lambda a, b, y, dy: dy * (-a / b / b),
        inputs="probability",
    )
_binary(
    operations.Power,
    "aᵇ",
    "da = b aᵇ⁻¹ dy; db = aᵇ log(a) dy",
    np.power,
    lambda a, b, y, dy: dy * b * np.power(a, b - 1),
    lambda a, b, y, dy: dy * y * (math.log(a) if isinstance(a, float) else np.log(a)),
    inputs="probability",
    numbers=(2.0, 0.5, 3, -1.0),
)
_binary(
    operations.Maximum,
    "max(a, b)",
    "da = dy where a ≥ b, 0 elsewhere; db = dy where a < b, 0 elsewhere",
    np.maximum,
    lambda a, b, y, dy: np.where(a >= b, dy, 0.0),
    lambda a, b, y, dy: np.where(a >= b, 0.0, dy),
    ties=True,
)
_binary(
    operations.Minimum,
    "min(a, b)",
    "da = dy where a ≤ b, 0 elsewhere; db = dy where a > b, 0 elsewhere",
    np.minimum,
    lambda a, b, y, dy: np.where(a <= b, dy, 0.0),
    lambda a, b, y, dy: np.where(a <= b, 0.0, dy),
    ties=True,
)
