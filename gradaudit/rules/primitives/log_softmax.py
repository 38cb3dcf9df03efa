"""log p and p of p = exp(z) / Σ exp(z), and log Σ exp(z), without overflow."""

from typing import Any

import numpy as np

from gradaudit.numerics import PRECISIONS, below_largest
from gradaudit.numerics.arithmetic import Array


def log_softmax(z: Array, axis: Any) -> tuple[Array, Array]:
    """Return log p = z − max z − log Σ exp(z − max z), and p, along an axis or several.

    VJP: of log p, dz = dlog p − p Σ dlog p; that of p is `softmax_vjp`.
    """
    below, log_total, p = _parts(z, axis)
    return below - log_total, p


def softmax_vjp(p: Array, dp: Array, axis: Any) -> Array:
    """Return dz of p = softmax(z): p (dp − Σ p dp), as ∂pᵢ/∂zⱼ = pᵢ (δᵢⱼ − pⱼ)."""
    return p * (dp - (p * dp).sum(axis=axis, keepdims=True))


def not_one(t: np.ndarray, axis: int, dtype: str) -> str:
    """Return where TensorFlow's gradient of the cross-entropy of softmax(z) is not its derivative.

    The derivative is p Σ t − t. TensorFlow's op has p − t, which is that only where Σ t = 1.

    t: targets. dtype: in which the loss takes them. Returns the row whose sum is farthest from 1;
    "" where rounding explains all sums: those of a softmax over n classes in that dtype differ
    from 1 by (n + 1) u at most, for n − 1 additions, a reciprocal and a product, each of relative
    error u (N. Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 4.2); label
    smoothing makes three roundings more.
    """
    sums = t.sum(axis=axis)
    limit = (t.shape[axis] + 4) * PRECISIONS[dtype].roundoff
    far = np.abs(sums - 1)
    far = np.where(far > limit, far, 0.0)  # 0 for NaN
    if not far.any():
        return ""
    place = np.unravel_index(np.argmax(far), far.shape)
    row = [int(i) for i in place]
    digits = max(4, 2 - int(np.floor(np.log10(far[place]))))
    named = f"row {row[0] if len(row) == 1 else row}" if row else "y"
    return f"where the rows of y do not sum to 1: {named} sums to {sums[place]:.{digits}g}"


def log_sum_exp(z: Array, axis: Any) -> tuple[Array, Array]:
    """Return log Σ exp(z), with axes of length 1, and p, along an axis or several.

    VJP: dz = p times the cotangent of the sum's logarithm.
    """
    _, log_total, p = _parts(z, axis)
    return log_total + z.max(axis=axis, keepdims=True), p


def _parts(z: Array, axis: Any) -> tuple[Array, Array, Array]:
    below = below_largest(z, axis)
    e = np.exp(below)
    total = e.sum(axis=axis, keepdims=True)
    return below, np.log(total), e / total
