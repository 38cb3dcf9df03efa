"""Operations of one tensor, elementwise; each binds to a function of `primitives.elementwise`."""

from gradaudit.keras_compat import math_operations
from gradaudit.keras_compat import numpy_operations as operations
from gradaudit.rules.primitives import elementwise
from gradaudit.rules.primitives.clip import clipped
from gradaudit.rules.primitives.elementwise import Elementwise
from gradaudit.rules.registry import Case, rule


def _register(operation: type, f: Elementwise, inputs="real", kinks=()):
    def apply(call, x):
        y, vjp = f(x)
        return y, lambda dy: (vjp(dy), {})

    apply.__name__ = operation.__name__
    apply.__doc__ = (
        f"Apply y = {f.formula}, elementwise.\n\n"
        "Shapes: x, y, dy and dx alike.\n"
        f"VJP: dx = {f.dx}.\n"
        f"Kinks: {', '.join(map(str, kinks)) or 'none'}."
    )
    case = Case("default", operation, (3, 5), kinks, inputs=inputs)
    rule(operation, cases=[case], source=f"{operation.__module__.replace('.', '/')}.py")(apply)


_register(operations.Negative, elementwise.NEGATIVE)
_register(operations.Absolute, elementwise.ABSOLUTE, kinks=(0.0,))
_register(operations.Abs, elementwise.ABSOLUTE, kinks=(0.0,))
_register(operations.Square, elementwise.SQUARE)
_register(operations.Sqrt, elementwise.SQUARE_ROOT, inputs="probability")
_register(math_operations.Rsqrt, elementwise.INVERSE_ROOT, inputs="probability")
_register(operations.Reciprocal, elementwise.RECIPROCAL, inputs="probability")
_register(operations.Expm1, elementwise.EXPM1)
_register(operations.Log, elementwise.LOG, inputs="probability")
_register(operations.Log1p, elementwise.LOG1P, inputs="probability")


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
