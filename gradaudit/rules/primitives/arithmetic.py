"""Functions of two arrays, elementwise with broadcasting: + − * / **, the larger and smaller one.

An operand may be a Python number, to which no cotangent goes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradaudit.numerics import chained, chained_through, divided
from gradaudit.numerics.arithmetic import Array
from gradaudit.rules.primitives.broadcasting import unbroadcast

Operand = Array | float


@dataclass(frozen=True)
class Binary:
    """A function of two operands; called with a and b, it returns y and the VJP.

    formula, cotangents: y, da and db in terms of a, b, y and dy, for the docstrings of what binds
        to it.
    f: (a, b) to y. da, db: (a, b, y, dy) to the cotangent of an operand, before the sum over its
        axes of broadcasting.
    """

    formula: str
    cotangents: str
    f: Callable[[Any, Any], Array]
    da: Callable[[Any, Any, Array, Array], Array]
    db: Callable[[Any, Any, Array, Array], Array]

    def __call__(
        self, a: Operand, b: Operand, wanted: tuple[bool, bool] = (True, True)
    ) -> tuple[Array, Callable[[Array], tuple[Any, Any]]]:
        """Return y (a and b broadcast), and the VJP: dy to (da, db), each of its operand's shape.

        wanted: whose cotangents are asked for; the VJP returns None for the others, and for Python
            numbers. A constant base below 0 has no logarithm, so that db of aᵇ is not computed.
        """
        y = self.f(a, b)

        def vjp(dy: Array) -> tuple[Any, Any]:
            pairs = zip((a, b), (self.da, self.db), wanted, strict=True)
            da, db = (
                unbroadcast(back(a, b, y, dy), operand.shape)
                if is_wanted and not isinstance(operand, int | float)
                else None
                for operand, back, is_wanted in pairs
            )
            return da, db

        return y, vjp


ADD = Binary(
    "a + b",
    "da = dy; db = dy",
    lambda a, b: a + b,
    lambda a, b, y, dy: dy,
    lambda a, b, y, dy: dy,
)
SUBTRACT = Binary(
    "a − b",
    "da = dy; db = −dy",
    lambda a, b: a - b,
    lambda a, b, y, dy: dy,
    lambda a, b, y, dy: -dy,
)
MULTIPLY = Binary(
    "a b",
    "da = b dy; db = a dy",
    lambda a, b: a * b,
    lambda a, b, y, dy: chained(dy, b),
    lambda a, b, y, dy: chained(dy, a),
)
DIVIDE = Binary(
    "a / b",
    "da = dy / b; db = −a dy / b²",
    lambda a, b: a / b,
    lambda a, b, y, dy: divided(dy, b),
    lambda a, b, y, dy: chained(dy, -a / b / b),
)
POWER = Binary(
    "aᵇ",
    "da = b aᵇ⁻¹ dy; db = aᵇ log(a) dy, and 0 where aᵇ = 0: y log(a) → 0",
    np.power,
    lambda a, b, y, dy: chained(dy * b, np.power(a, b - 1)),
    lambda a, b, y, dy: chained(dy * y, float(np.log(a)) if isinstance(a, float) else np.log(a)),
)
MAXIMUM = Binary(
    "max(a, b)",
    "da = dy where a ≥ b, 0 elsewhere; db = dy where a < b, 0 elsewhere",
    np.maximum,
    lambda a, b, y, dy: chained_through(y, dy, np.where(a >= b, dy, 0.0)),
    lambda a, b, y, dy: chained_through(y, dy, np.where(a >= b, 0.0, dy)),
)
MINIMUM = Binary(
    "min(a, b)",
    "da = dy where a ≤ b, 0 elsewhere; db = dy where a > b, 0 elsewhere",
    np.minimum,
    lambda a, b, y, dy: chained_through(y, dy, np.where(a <= b, dy, 0.0)),
    lambda a, b, y, dy: chained_through(y, dy, np.where(a <= b, 0.0, dy)),
)
