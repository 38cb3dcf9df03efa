"""Where."""

import numpy as np

from gradaudit.keras_compat import numpy_operations as operations
from gradaudit.rules.primitives import selection
from gradaudit.rules.registry import Case, rule

_CONDITION = np.array(np.resize([1, 0, 0, 1, 0], (3, 4)), bool)


@rule(
    operations.Where,
    cases=[
        Case(
            "two",
            operations.Where,
            ((3, 4), (3, 4)),
            arguments={"condition": _CONDITION},
            apply=lambda operation, x1, x2, condition: operation(condition, x1, x2),
        ),
        Case(
            "a number",
            operations.Where,
            (3, 4),
            arguments={"condition": _CONDITION, "x2": -0.5},
            apply=lambda operation, x1, condition, x2: operation(condition, x1, x2),
        ),
        Case(
            "broadcast, of a number",
            operations.Where,
            (3, 1),
            arguments={"condition": _CONDITION, "x1": 2.0},
            apply=lambda operation, x2, condition, x1: operation(condition, x1, x2),
        ),
    ],
    source="keras/src/ops/numpy.py",
    integers=True,
)
def where(call, x):
    """Apply y = x₁ where the condition holds, and x₂ elsewhere.

    Shapes: condition, x₁ and x₂ broadcast to y.
    VJP:    dx₁ = dy where the condition holds, dx₂ = dy elsewhere, 0 otherwise; summed over the
            axes of broadcasting. No cotangent goes to the condition.
    Kinks:  none: the condition is no function of x that a gradient goes through.
    """
    tensors = iter(x if isinstance(x, tuple) else (x,))
    names = ("condition", "x1", "x2")
    given = [call.arguments[n] if n in call.arguments else next(tensors) for n in names]
    condition, a, b = given
    y, vjp = selection.where(np.asarray(call.numbers(condition), bool), a, b)

    def back(dy):
        cotangents = dict(zip(names, (None, *vjp(dy)), strict=True))
        found = tuple(cotangents[n] for n in names if n not in call.arguments)
        return (found if isinstance(x, tuple) else found[0]), {}

    return y, back
