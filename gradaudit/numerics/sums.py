"""Rounding rules of sums over axes.

    y = Σᵢ aᵢ      σ² = Σ mᵢ σᵢ² + m u² Σ sₖ²/3 + r(y)
    y = Σᵢ aᵢ/n    the sum, then one division
    yₖ = Σᵢ≤ₖ aᵢ   σ² = Σᵢ≤ₖ σᵢ² + u² Σᵢ≤ₖ yᵢ²

u is the unit roundoff of the accumulator (Precision.accumulator). Kinks add. Shapes are NumPy's.
"""

from typing import Any

import numpy as np

from gradaudit.numerics.dispatch import handles
from gradaudit.numerics.partial_sums import (
    REPEATING,
    SHORT,
    in_order,
    multiplicities,
    repeating,
    runs_of_equal_rows,
)
from gradaudit.numerics.rounded import Rounded, plus, round_once


@handles(np.sum)
def _sum(a: Rounded, axis: Any = None, keepdims: bool = False) -> Rounded:
    return _total(a, axis, keepdims, a.precision.accumulator(a.shape, axis))


@handles(np.mean)
def _mean(a: Rounded, axis: Any = None, keepdims: bool = False) -> Rounded:
    total = _total(a, axis, keepdims, a.precision.sum_roundoff)
    return total / (a.size // max(total.size, 1))


@handles(np.cumsum)
def _cumsum(a: Rounded, axis: int) -> Rounded:
    value = np.cumsum(a.value, axis)
    partial = a.precision.variance(a.precision.sum_roundoff) * np.cumsum(value**2, axis)
    variance = None if a.variance is None else np.cumsum(a.variance, axis)
    kink = None if a.kink is None else np.cumsum(a.kink, axis)
    return round_once(value, plus(partial, variance), kink, a.precision, ulps=0.0)


def _total_at_least(a: Rounded, axis: Any, keepdims: bool, roundoff: float) -> Rounded:
    """Return what `_total` does, of terms that are alike only in runs, and without kinks."""
    variance = None if a.variance is None else np.sum(a.variance, axis=axis, keepdims=keepdims)
    squares = np.sum(a.squares, axis=axis, keepdims=keepdims)
    n = a.size // max(squares.size, 1)
    if n <= 1:
        return Rounded(np.sum(a.value, axis, keepdims=keepdims), variance, None, a.precision)
    count = np.count_nonzero(a.value, axis=axis, keepdims=keepdims)  # 0 makes no rounding
    if n < SHORT:
        value = np.sum(a.value, axis=axis, keepdims=keepdims)
        walk = np.zeros(())
    else:
        value, terms = np.empty(squares.shape), _columns(a.value, axis, n)
        walk = _own_walk(terms, value)
        starts = runs_of_equal_rows(terms)
        if starts is not None:
            lengths = np.diff(starts, append=n)[:, None]
            rounds = terms[starts] != 0
            pairs = np.sum(rounds * lengths**2, axis=0)
            if (pairs >= REPEATING * np.sum(rounds * lengths, axis=0)).all():
                count = pairs.reshape(squares.shape)
            else:  # `repeating` may not see them
                rounds = np.zeros_like(rounds)
            if a.variance is not None:
                of_runs = np.add.reduceat(_columns(a.variance, axis, n), starts, axis=0)
                of_runs *= np.where(rounds, lengths, 1).astype(np.float32)
                variance = np.sum(of_runs, axis=0, dtype=np.float32).reshape(squares.shape)
    walk = np.maximum(walk, n * (value**2 / 3 + squares / 6))
    walk *= count * (a.precision.variance(roundoff) / (3 * n))
    return round_once(value, plus(walk.astype(np.float32), variance), None, a.precision)


def _own_walk(terms: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Write the sums of columns into `value`, and return Σ sₖ² in the order of their terms."""
    flat = value.reshape(-1)
    squares = in_order(
        lambda start, end, out: np.sum(terms[start:end], axis=0, out=out), len(terms), flat
    )
    return squares.reshape(value.shape)


def _columns(part: np.ndarray, axis: Any, n: int) -> np.ndarray:
    """Return the n terms of each sum over `axis`, (n, sums)."""
    axes = range(part.ndim) if axis is None else np.atleast_1d(axis)
    return np.moveaxis(part, axes, range(len(axes))).reshape(n, -1)


def _total(a: Rounded, axis: Any, keepdims: bool, roundoff: float) -> Rounded:
    """Return the sum over `axis` by an accumulator of unit roundoff `roundoff`."""

    def total(part: np.ndarray) -> np.ndarray:
        return np.sum(part, axis=axis, keepdims=keepdims)

    if a.precision.bound:
        return _total_at_least(a, axis, keepdims, roundoff)
    value = total(a.value)
    n = a.size // max(value.size, 1)
    p = a.precision
    variance, kink = a.variance, None if a.kink is None else total(a.kink)
    if n <= 1:
        return Rounded(value, None if variance is None else total(variance), kink, p)
    terms = _columns(a.value, axis, n)
    count: int | np.ndarray = n  # Σ mᵢ, which is m n
    if repeating(terms.T):
        repeats = multiplicities(terms.T).T
        count = np.sum(repeats * (terms != 0), axis=0).reshape(value.shape)
        if variance is not None:
            variance = np.sum(_columns(variance, axis, n) * repeats, axis=0).reshape(value.shape)
    elif variance is not None:
        variance = total(variance)
    squares = n * (value**2 / 3 + total(a.value**2) / 6)  # Σ sₖ² of a random walk
    if n >= SHORT:
        own_walk = _own_walk(terms, np.empty(value.shape))
        squares = np.where(own_walk > squares, own_walk, squares)
    own = p.variance(roundoff) * count / (3 * n) * squares
    if (largest := float(np.max(np.abs(a.value)))) * n > p.largest:
        # A partial sum may overflow although the whole sum does not.
        kink = plus(np.where(total(np.abs(a.value)) > p.largest, np.inf, 0.0), kink)
    if n * roundoff >= 1:
        # A term below half a ulp of the partial sum is lost; where all are lost the sum stagnates.
        lost = np.abs(value) * roundoff > largest
        kink = plus(np.where(lost, np.abs(value), 0.0), kink)
    return round_once(value, plus(own, variance), kink, p)
