"""log p and p of p = exp(z) / Σ exp(z), and log Σ exp(z), without overflow."""

from typing import Any

import numpy as np

from gradaudit.numerics import below_largest
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


_FAR_FROM_ONE = 1e-3
"""The most by which rounding, in any precision, makes a sum of targets differ from 1."""


def not_one(sums: np.ndarray) -> str:
    """Return where TensorFlow's gradient of the cross-entropy of softmax(z) is not its derivative.

    The derivative is p Σ t − t. TensorFlow's op has p − t, which is that only where Σ t = 1.

    sums: Σ t of each row. Returns "" where all are 1, up to rounding.
    """
    far = np.argwhere(np.abs(sums - 1) > _FAR_FROM_ONE)
    if not far.size:
        return ""
    row = far[0].tolist()
    named = str(row[0] if len(row) == 1 else row)
    return f"where the rows of y do not sum to 1: row {named} sums to {sums[tuple(row)]:.4g}"


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
