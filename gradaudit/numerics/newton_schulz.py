"""Newton-Schulz iterations, whose errors contract and must be propagated over all iterations.

One iteration x ← a x + (b A + c A²) x with A = x xᵀ is φ(s) = a s + b s³ + c s⁵ on the singular
values of x = U S Vᵀ, so U and V stay. The errors of its products of x with itself are far from
independent: propagated operation by operation, σ would grow a thousandfold.

An error E of x is, in the basis of the singular vectors, E' = Uᵀ E V. Its symmetric and its
antisymmetric part are multiplied by the divided differences φ[sᵢ, sⱼ] and φ[sᵢ, −sⱼ] (Daleckii and
Krein 1965; φ is odd), and the part outside V by φ[sᵢ, 0]; over several iterations, by the products
of these. So the errors that each iteration makes are propagated to the last one. The mean of all
factors keeps an error at its element; the deviations from the mean spread it, and there the
elements of E' are taken as independent.
"""

from typing import Any

import numpy as np

from gradaudit.numerics.arithmetic import Array
from gradaudit.numerics.rounded import Part, Rounded


def newton_schulz(x: Array, steps: int, coefficients: tuple[float, float, float]) -> Array:
    """Return x after `steps` iterations x ← a x + (b A + c A²) x, A = x xᵀ; in any arithmetic.

    Error: each iteration's own rounding errors and those of x, propagated as derived above. An
    overflow before the iterations may change every element: its kink becomes infinite for all.

    Shapes: x and the result (I, O), I ≤ O. coefficients: (a, b, c).
    """
    if not isinstance(x, Rounded):
        for _ in range(steps):
            x = _iteration(x, coefficients)
        return x
    y, precision = x.value, x.precision
    u, s, v = np.linalg.svd(y, full_matrices=False)
    factors, slopes = [], []
    variances: list[Part] = [x.variance]
    for _ in range(steps):
        even, odd = (_divided(coefficients, s[:, None], sign * s) for sign in (1, -1))
        odd = np.where(np.eye(len(s)) > 0, even, odd)  # the diagonal has no antisymmetric part
        factors.append((even, odd))
        slopes.append(_divided(coefficients, s, 0.0))
        s = slopes[-1] * s
        once: Rounded = _iteration(Rounded(y, None, None, precision), coefficients)
        y = once.value
        variances.append(once.variance)

    uu, vv = u**2, v.T**2
    outside = np.maximum(1 - vv.sum(axis=1), 0.0)
    symmetric, antisymmetric = np.ones((len(s), len(s))), np.ones((len(s), len(s)))
    slope = np.ones(len(s))
    total = np.zeros(x.shape)
    for step in reversed(range(steps + 1)):
        variance = variances[step]
        if variance is not None:
            kept, turned = (symmetric + antisymmetric) / 2, (symmetric - antisymmetric) / 2
            mean = (kept.sum() + slope.sum() * (x.shape[1] - len(s))) / x.size
            left = uu.T @ variance
            both = left @ vv
            spread = (kept - mean) ** 2 * both + turned**2 * both.T
            rest = (slope - mean)[:, None] ** 2 * left * outside
            total += mean**2 * variance + uu @ (spread @ vv.T + rest)
        if step:
            symmetric = symmetric * factors[step - 1][0]
            antisymmetric = antisymmetric * factors[step - 1][1]
            slope = slope * slopes[step - 1]
    kink = None if x.kink is None or not x.kink.any() else np.full(x.shape, np.inf)
    return Rounded(y, total, kink, precision)


def _iteration(x: Any, coefficients: tuple[float, float, float]) -> Any:
    a, b, c = coefficients
    gram = x @ x.T
    return x * a + (gram * b + gram * c @ gram) @ x


def _divided(
    coefficients: tuple[float, float, float], p: np.ndarray, q: np.ndarray | float
) -> np.ndarray:
    """Return φ[p, q] = (φ(p) − φ(q)) / (p − q), which is φ'(p) where the two are equal."""
    a, b, c = coefficients
    return a + b * (p**2 + p * q + q**2) + c * (p**4 + p**3 * q + p**2 * q**2 + p * q**3 + q**4)
