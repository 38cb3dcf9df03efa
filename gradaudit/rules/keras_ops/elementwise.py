"""Operations of one tensor, elementwise: y = f(x), and dx from (x, y, dy)."""

from collections.abc import Callable

import numpy as np
from keras.src.ops import math as more_operations
from keras.src.ops import numpy as operations  # not exported; keras.ops.log(x) makes one of Log

from gradaudit.rules.primitives.clip import clipped
from gradaudit.rules.registry import Case, rule


def _unary(
    operation: type,
    formula: str,
    dx: str,
    f: Callable,
    vjp: Callable,
    inputs: str = "real",
    kinks: tuple[float, ...] = (),
) -> None:
    def apply(call, x):
        y = f(x)
        return y, lambda dy: (vjp(x, y, dy), {})

    apply.__name__ = operation.__name__
    apply.__doc__ = (
        f"Apply y = {formula}, elementwise.\n\n"
        "Shapes: x, y, dy and dx alike.\n"
        f"VJP: dx = {dx}.\n"
        f"Kinks: {', '.join(map(str, kinks)) or 'none'}."
    )
    case = Case("default", operation, (3, 5), kinks, inputs=inputs)
    rule(operation, cases=[case], source=f"{operation.__module__.replace('.', '/')}.py")(apply)


_unary(operations.Negative, "−x", "−dy", lambda x: -x, lambda x, y, dy: -dy)
for _operation in (operations.Absolute, operations.Abs):
    _unary(
        _operation,
        "|x|",
        "sign(x) dy, with sign(0) = 0",
        np.abs,
        lambda x, y, dy: dy * np.sign(x),
        kinks=(0.0,),
    )
_unary(operations.Square, "x²", "2 x dy", np.square, lambda x, y, dy: dy * (2 * x))
_unary(operations.Sqrt, "√x", "dy / (2 y)", np.sqrt, lambda x, y, dy: dy * 0.5 / y, "probability")
_unary(
    more_operations.Rsqrt,
    "1 / √x",
    "−y³ dy / 2",
    lambda x: np.power(x, -0.5),
    lambda x, y, dy: dy * -0.5 * (y * y * y),
    "probability",
)
_unary(
    operations.Reciprocal,
    "1 / x",
    "−y² dy",
    lambda x: 1 / x,
    lambda x, y, dy: -dy * np.square(y),
    "probability",
)
_unary(operations.Expm1, "exp x − 1", "exp(x) dy", np.expm1, lambda x, y, dy: dy * np.exp(x))
_unary(operations.Log, "log x", "dy / x", np.log, lambda x, y, dy: dy * (1 / x), "probability")
_unary(
    operations.Log1p,
    "log(1 + x)",
    "dy / (1 + x)",
    np.log1p,
    lambda x, y, dy: dy * (1 / (1 + x)),
    "probability",
)


@rule(
    operations.Clip,
    cases=[
        Case("both", lambda: operations.Clip(-0.5, 1.0), (3, 5), kinks=(-0.5, 1.0)),
        Case("ties", lambda: operations.Clip(-1.0, 1.0), (5, 6), ties=True),
    ],
    source="keras/src/ops/numpy.py",
)
def clip(call, x):
    """Apply y = min(max(x, x_min), x_max), elementwise.

    Shapes: x and y alike.
    VJP:    dx = dy where x_min ≤ x ≤ x_max, 0 elsewhere.
    Kinks:  x_min and x_max, at which dy goes through.
    """
    y, vjp = clipped(x, call.layer.x_min, call.layer.x_max)
    return y, lambda dy: (vjp(dy), {})
