"""Operations of two operands: + − * / ** and the larger or smaller one.

Each binds to a function of `primitives.arithmetic`. An operand may be a number or an array of
constants, to which no cotangent goes.
"""

import functools
from collections.abc import Callable

import numpy as np

from gradaudit.keras_compat import numpy_operations as operations
from gradaudit.rules.primitives import arithmetic
from gradaudit.rules.primitives.arithmetic import Binary
from gradaudit.rules.registry import Case, rule

_SOURCE = "keras/src/ops/numpy.py"


def apply_to_operands(call, x, f: Callable):
    """Return y = f(x1, x2), by the names of the operation's arguments, and the rule's VJP.

    f: (a, b, wanted) to y and the VJP to both, such as `Binary` and `matmul`.
    """
    if isinstance(x, tuple):
        y, vjp = f(*x)
        return y, lambda dy: (vjp(dy), {})
    constant = call.array if "float" in call.dtype else np.asarray
    held = {
        name: float(value) if np.ndim(value) == 0 else constant(value)
        for name, value in call.arguments.items()
    }
    tensor = 1 if "x1" in held else 0
    y, vjp = f(held.get("x1", x), held.get("x2", x), (tensor == 0, tensor == 1))
    return y, lambda dy: (vjp(dy)[tensor], {})


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


def _register(operation: type, f: Binary, inputs="real", numbers=(2.0, -0.3), ties=False):
    def apply(call, x):
        return apply_to_operands(call, x, f)

    apply.__name__ = operation.__name__
    apply.__doc__ = (
        f"Apply y = {f.formula}, elementwise.\n\n"
        "Shapes: a and b broadcast to y.\n"
        f"VJP: {f.cotangents}; summed over the axes of broadcasting.\n"
        f"Kinks: {'ties, in which a takes all of dy' if ties else 'none'}."
    )
    rule(operation, cases=_cases(operation, inputs, numbers, ties), source=_SOURCE)(apply)


_register(operations.Add, arithmetic.ADD)
_register(operations.Subtract, arithmetic.SUBTRACT)
_register(operations.Multiply, arithmetic.MULTIPLY)
_register(operations.TrueDivide, arithmetic.DIVIDE, inputs="probability")
_register(operations.Divide, arithmetic.DIVIDE, inputs="probability")
_register(operations.Power, arithmetic.POWER, inputs="probability", numbers=(2.0, 0.5, 3, -1.0))
_register(operations.Maximum, arithmetic.MAXIMUM, ties=True)
_register(operations.Minimum, arithmetic.MINIMUM, ties=True)
