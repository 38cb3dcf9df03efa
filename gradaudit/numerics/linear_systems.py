"""Rounding rules of matrix equations: NumPy's solve, inv, cholesky, det and slogdet.

The backward error ΔA of a factorization A = P L U is the rounding error of the product of its
factors, and that of each of the two substitutions with L and U is as large: N. Higham, Accuracy and
Stability of Numerical Algorithms (2002), theorems 9.3, 9.4 and 10.3. To first order

    X = A⁻¹ R        ΔX = A⁻¹ (ΔR − ΔA X)
    log |det A|      tr(A⁻¹ ΔA)
    A = L Lᵀ         ΔL = L Φ(L⁻¹ ΔA L⁻ᵀ), Φ the lower triangle with half of the diagonal

and the variances of independent elements of ΔA and ΔR add. Shapes: A (..., N, N), R (..., N, K).
"""

from typing import Any

import numpy as np
from scipy import linalg

from gradaudit.numerics.dispatch import handles
from gradaudit.numerics.precision import Precision
from gradaudit.numerics.rounded import Part, Rounded, operands, plus, round_once

SUBSTITUTIONS = 2
"""Triangular systems that `solve` solves: with L and with U."""


def _transposed(a: np.ndarray) -> np.ndarray:
    return np.swapaxes(a, -1, -2)


def _zero_for_none(part: Part) -> Any:
    return 0.0 if part is None else part


def _error_of_product(a: np.ndarray, b: np.ndarray, precision: Precision) -> np.ndarray:
    """Return the variance (..., I, O) of the roundings of a product of exact matrices."""
    product = Rounded(a, None, None, precision) @ Rounded(b, None, None, precision)
    return product.variance


def _error_of_factors(a: Rounded) -> np.ndarray:
    """Return the variance (..., N, N) of ΔA of a factorization P L U."""
    if not a.size:
        return np.zeros(a.shape)
    p, lower, upper = linalg.lu(a.value, check_finite=False)
    return p @ _error_of_product(lower, upper, a.precision)


@handles(np.linalg.solve)
def _solve(x: Any, y: Any) -> Rounded:
    a, b = operands(x, y)
    value = np.linalg.solve(a.value, b.value)
    inverse = np.linalg.inv(a.value)
    own = (1 + SUBSTITUTIONS) * _error_of_factors(a)
    residual = plus((own + _zero_for_none(a.variance)) @ value**2, b.variance)
    kink = None
    if a.kink is not None or b.kink is not None:
        moved = _zero_for_none(b.kink)
        if a.kink is not None:
            moved = moved + a.kink @ np.abs(value)
        kink = np.abs(inverse) @ moved
    return round_once(value, inverse**2 @ residual, kink, a.precision)


@handles(np.linalg.inv)
def _inv(a: Rounded) -> Rounded:
    eye = np.broadcast_to(np.eye(a.shape[-1]), a.shape)
    return _solve(a, Rounded(eye, None, None, a.precision))


@handles(np.linalg.slogdet)
def _slogdet(a: Rounded) -> tuple[Rounded, Rounded]:
    """Return sign and log |det A| = Σ log |Uᵢᵢ|, to which the roundings of that sum are added."""
    sign, log = np.linalg.slogdet(a.value)
    by = _transposed(np.linalg.inv(a.value)) ** 2
    variance = np.sum(by * (_error_of_factors(a) + _zero_for_none(a.variance)), axis=(-2, -1))
    pivots = np.abs(np.diagonal(linalg.lu(a.value, check_finite=False)[2], axis1=-2, axis2=-1))
    own = np.log(Rounded(pivots, None, None, a.precision)).sum(axis=-1)
    variance = variance + _zero_for_none(own.variance)
    return Rounded(sign, None, None, a.precision), round_once(log, variance, None, a.precision)


@handles(np.linalg.det)
def _det(a: Rounded) -> Rounded:
    """Return det A = sign exp(log |det A|), as TensorFlow does; source: determinant_op.cc."""
    sign, log = _slogdet(a)
    return sign * np.exp(log)


@handles(np.linalg.cholesky)
def _cholesky(a: Rounded) -> Rounded:
    """Return L. Kernels read one triangle, so Aᵢⱼ and Aⱼᵢ have one error e. It moves Lₚₖ by

    e (Tₚᵢ Mₖⱼ + Tₚⱼ Mₖᵢ), M = L⁻¹, T = L Φₖ M, Φₖ diagonal: 0 before k, 1/2 at k and 1 after it.
    """
    lower = np.linalg.cholesky(a.value)
    inverse = np.linalg.inv(lower)
    moved = _error_of_product(lower, _transposed(lower), a.precision) + _zero_for_none(a.variance)
    eye = np.eye(a.shape[-1])
    below = np.tril(moved, -1)
    apart, own = below + _transposed(below), np.sum(moved * eye, axis=-1)
    columns = []
    for k in range(a.shape[-1]):
        counted = np.where(np.arange(a.shape[-1]) > k, 1.0, eye[k] / 2)
        t, m = (lower * counted) @ inverse, inverse[..., k : k + 1, :]
        both = t * m
        column = np.sum((t**2 @ apart) * m**2 + (both @ apart) * both, axis=-1)
        columns.append(column + np.sum(both**2 * own[..., None, :], axis=-1))
    return round_once(lower, np.tril(np.stack(columns, -1)), None, a.precision)
