"""Newton-Schulz iterations, whose rounding errors contract and must be followed as a whole.

One iteration x ← a x + (b A + c A²) x with A = x xᵀ is φ(s) = a s + b s³ + c s⁵ on the singular
values of x = U S Vᵀ, so U and V stay. Its products of x with itself make errors that are far from
independent: taken one operation at a time they would seem to grow a thousandfold.

An error E of x is, in the basis of the singular vectors, E' = Uᵀ E V. Its symmetric and its
antisymmetric part are multiplied by the divided differences φ[sᵢ, sⱼ] and φ[sᵢ, −sⱼ] (Daleckii and
Krein 1965; φ is odd), and what lies outside V by φ[sᵢ, 0]. So the variance of either part is
multiplied by their squares, and each iteration adds that of its own roundings. Elements of E' are
taken as independent, which they are where all elements of E have one variance.
"""

import numpy as np

from gradaudit.numerics.arithmetic import Array
from gradaudit.numerics.rounded import Rounded


def newton_schulz(x: Array, steps: int, coefficients: tuple[float, float, float]) -> Array:
    """Return x, of shape (I, O) with I ≤ O, after iterations with the coefficients (a, b, c)."""
    if not isinstance(x, Rounded):
        for _ in range(steps):
            x = _iteration(x, coefficients)
        return x
    y, precision = x.value, x.precision
    u, s, v = np.linalg.svd(y, full_matrices=False)
    uu, vv = u**2, v.T**2
    outside = np.maximum(1 - vv.sum(axis=1), 0.0)
    inherited = np.zeros((2, len(s), len(s))), np.zeros(x.shape)
    added = x.variance
    for step in range(steps + 1):
        (parts, rest), own = inherited, 0.0 if added is None else uu.T @ added
        if added is not None:
            both = own @ vv
            parts, rest = parts + (both + both.T) / 4, rest + own * outside
        if step == steps:
            break
        factors = np.stack([_divided(coefficients, s[:, None], sign * s) for sign in (1, -1)])
        slopes = _divided(coefficients, s, 0.0)
        inherited = parts * factors**2, rest * slopes[:, None] ** 2
        once = _iteration(Rounded(y, None, None, precision), coefficients)
        y, added, s = once.value, once.variance, slopes * s
    variance = uu @ (parts.sum(axis=0) @ vv.T + rest)
    # What an overflow before this may do to the whole, no element escapes.
    kink = None if x.kink is None or not x.kink.any() else np.full(x.shape, np.inf)
    return Rounded(y, variance, kink, precision)


def _iteration(x: Array, coefficients: tuple[float, float, float]) -> Array:
    a, b, c = coefficients
    gram = x @ x.T
    return x * a + (gram * b + gram * c @ gram) @ x


def _divided(
    coefficients: tuple[float, float, float], p: np.ndarray, q: np.ndarray | float
) -> np.ndarray:
    """Return φ[p, q] = (φ(p) − φ(q)) / (p − q), which is φ'(p) where the two are equal."""
    a, b, c = coefficients
    return a + b * (p**2 + p * q + q**2) + c * (p**4 + p**3 * q + p**2 * q**2 + p * q**3 + q**4)
