"""Functions of one array, elementwise: y = f(x), and dx from (x, y, dy).

Where a slope may be infinite, `chained` and `divided` make 0 of a zero cotangent.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special

from gradaudit.numerics import chained, divided
from gradaudit.numerics.arithmetic import Array


@dataclass(frozen=True)
class Elementwise:
    """An elementwise function; called with x, it returns y and the VJP.

    formula, dx: y and dx in terms of x, y and dy, for the docstrings of what binds to it.
    f: x to y. back: (x, y, dy) to dx.
    """

    formula: str
    dx: str
    f: Callable[[Array], Array]
    back: Callable[[Array, Array, Array], Array]

    def __call__(self, x: Array) -> tuple[Array, Callable[[Array], Array]]:
        """Return y (shape of x), and the VJP: dy to dx, both of that shape."""
        y = self.f(x)
        return y, lambda dy: self.back(x, y, dy)


NEGATIVE = Elementwise("−x", "−dy", lambda x: -x, lambda x, y, dy: -dy)
ABSOLUTE = Elementwise(
    "|x|", "sign(x) dy, with sign(0) = 0", np.abs, lambda x, y, dy: dy * np.sign(x)
)
SQUARE = Elementwise("x²", "2 x dy", np.square, lambda x, y, dy: chained(dy, 2 * x))
SQUARE_ROOT = Elementwise("√x", "dy / (2 y)", np.sqrt, lambda x, y, dy: divided(dy * 0.5, y))
INVERSE_ROOT = Elementwise(
    "1 / √x",
    "−y³ dy / 2",
    lambda x: np.power(x, -0.5),
    lambda x, y, dy: chained(dy * -0.5, y * y * y),
)
RECIPROCAL = Elementwise(
    "1 / x", "−y² dy", lambda x: 1 / x, lambda x, y, dy: chained(-dy, np.square(y))
)

EXPM1 = Elementwise("exp x − 1", "exp(x) dy", np.expm1, lambda x, y, dy: chained(dy, np.exp(x)))
LOG = Elementwise("log x", "dy / x", np.log, lambda x, y, dy: chained(dy, 1 / x))
LOG1P = Elementwise(
    "log(1 + x)", "dy / (1 + x)", np.log1p, lambda x, y, dy: chained(dy, 1 / (1 + x))
)

_TWO_OVER_ROOT_PI = 2 / math.sqrt(math.pi)
ERF = Elementwise(
    "erf x",
    "2 exp(−x²) dy / √π",
    special.erf,
    lambda x, y, dy: dy * (_TWO_OVER_ROOT_PI * np.exp(-np.square(x))),
)
ERFC = Elementwise(
    "1 − erf x",
    "−2 exp(−x²) dy / √π",
    special.erfc,
    lambda x, y, dy: dy * (-_TWO_OVER_ROOT_PI * np.exp(-np.square(x))),
)

SIN = Elementwise("sin x", "cos(x) dy", np.sin, lambda x, y, dy: dy * np.cos(x))
COS = Elementwise("cos x", "−sin(x) dy", np.cos, lambda x, y, dy: -(dy * np.sin(x)))
TAN = Elementwise(
    "tan x", "dy / cos² x", np.tan, lambda x, y, dy: divided(dy, np.square(np.cos(x)))
)
ARCSIN = Elementwise(
    "asin x", "dy / √(1 − x²)", np.arcsin, lambda x, y, dy: divided(dy, np.sqrt(1 - np.square(x)))
)
ARCCOS = Elementwise(
    "acos x", "−dy / √(1 − x²)", np.arccos, lambda x, y, dy: -divided(dy, np.sqrt(1 - np.square(x)))
)
ARCTAN = Elementwise("atan x", "dy / (1 + x²)", np.arctan, lambda x, y, dy: dy / (1 + np.square(x)))
SINH = Elementwise("sinh x", "cosh(x) dy", np.sinh, lambda x, y, dy: chained(dy, np.cosh(x)))
COSH = Elementwise("cosh x", "sinh(x) dy", np.cosh, lambda x, y, dy: chained(dy, np.sinh(x)))
ARCSINH = Elementwise("asinh x", "dy / cosh y", np.arcsinh, lambda x, y, dy: dy / np.cosh(y))
ARCCOSH = Elementwise(
    "acosh x", "dy / sinh y", np.arccosh, lambda x, y, dy: divided(dy, np.sinh(y))
)
ARCTANH = Elementwise(
    "atanh x", "dy / (1 − x²)", np.arctanh, lambda x, y, dy: divided(dy, 1 - np.square(x))
)
