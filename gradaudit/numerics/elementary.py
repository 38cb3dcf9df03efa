"""The table of elementary functions: the derivative and accuracy of each.

Accuracy is the largest error of TensorFlow's kernels (graph and XLA, CPU) in halves of a unit in
the last place, rounded up: one number for float32, one for float16 and bfloat16, which most kernels
compute in float32 and round at the end. `benchmarks/calibrate_rounding.py` measures both again.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import special


class Elementary(NamedTuple):
    """Derivative and accuracy of one function y = f(a).

    derivative: (a, y) -> dy/da, elementwise.
    ulps: accuracy c in float32 and float64, |error| ≤ c h(y): a number, or a function of a.
    half_ulps: accuracy in float16 and bfloat16.
    inside: an intermediate result that some kernels compute; where it overflows they return 0.
    in_halves: f as the sequence of rounded operations of half-precision kernels that do not compute
        it in float32.
    """

    derivative: Callable[[np.ndarray, np.ndarray], np.ndarray]
    ulps: float | Callable[[np.ndarray], np.ndarray]
    half_ulps: float
    inside: Callable[[np.ndarray], np.ndarray] | None = None
    in_halves: Callable[[Any], Any] | None = None

    def accuracy(self, a: np.ndarray, halves: bool = False) -> float | np.ndarray:
        """Return c at a, a number or an array of a's shape; `halves` for float16 and bfloat16."""
        if halves:
            return self.half_ulps
        return self.ulps(a) if callable(self.ulps) else self.ulps


def _logistic(a: Any) -> Any:
    e = np.exp(a)
    return np.where(np.isinf(e), 1.0, e / (1.0 + e))


POWER_ULPS, RSQRT_ULPS, RECIPROCAL_ULPS = 3.0, 6.0, 6.0
"""Accuracies of xᵖ, x^(−1/2) and 1 / x.

TensorFlow computes x^(−1/2), and x / sqrt(y) too, by rsqrt. Its graphs compute x⁻¹ and 1 / x by the
reciprocal op, which is as inaccurate.
"""

ELEMENTARY: dict[np.ufunc, Elementary] = {
    np.exp: Elementary(lambda a, y: y, 4, 1),
    np.expm1: Elementary(lambda a, y: y + 1, 12, 5),
    np.log: Elementary(lambda a, y: 1 / a, 6, 1),
    np.log1p: Elementary(lambda a, y: 1 / (1 + a), 8, 4),
    np.sqrt: Elementary(lambda a, y: 0.5 / y, 1, 1),
    np.square: Elementary(lambda a, y: 2 * a, 1, 1),
    np.tanh: Elementary(lambda a, y: 1 - y * y, 10, 1),
    special.erf: Elementary(lambda a, y: 2 / math.sqrt(math.pi) * np.exp(-a * a), 12, 1),
    special.erfc: Elementary(
        lambda a, y: -2 / math.sqrt(math.pi) * np.exp(-a * a),
        lambda a: np.where(a > 0, 16 + 2 * a * a, 6.0),  # exp(−a²) of a rounded a²
        1,
    ),
    np.sin: Elementary(lambda a, y: np.cos(a), 3, 1),
    np.cos: Elementary(lambda a, y: -np.sin(a), 3, 1),
    np.tan: Elementary(lambda a, y: 1 + y * y, 2, 1),
    np.arcsin: Elementary(lambda a, y: 1 / np.sqrt(1 - a * a), 8, 3),
    np.arccos: Elementary(lambda a, y: -1 / np.sqrt(1 - a * a), 9, 3),
    np.arctan: Elementary(lambda a, y: 1 / (1 + a * a), 7, 1),
    np.sinh: Elementary(lambda a, y: np.cosh(a), 18, 1),
    np.cosh: Elementary(lambda a, y: np.sinh(a), 18, 1),
    np.arcsinh: Elementary(lambda a, y: 1 / np.sqrt(a * a + 1), 6, 5),
    np.arccosh: Elementary(lambda a, y: 1 / np.sqrt(a * a - 1), 10, 6),
    np.arctanh: Elementary(lambda a, y: 1 / (1 - a * a), 6, 5),
    special.expit: Elementary(
        lambda a, y: y * (1 - y), 12, 4, inside=lambda a: np.exp(-a), in_halves=_logistic
    ),
}
