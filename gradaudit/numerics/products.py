"""Rounding rule of matrix products.

    yᵢⱼ = Σₗ aᵢₗ bₗⱼ    σ² = max(walk, m u² Σ sₖ²/3) + r(y)
    walk = Σₗ mₗ [(b σa)² + (a σb)² + (2 v² + u²/3 + n u²/18) (a b)²] + m n u² y²/9

u is the unit roundoff of the accumulator (Precision.matmul_roundoff, contraction_roundoff for an
einsum), v that to which the factors are rounded first, 0 for none (Precision.product_roundoff);
u²/3 is the rounding of each product. Σ sₖ² is that of the terms in their own order. Kinks:
kink(a) |b| + |a| kink(b).

Runs. Where rows of B are equal, as in the gradient of a mean over positions, their errors are, too:
a run R of them contributes (Σ_R a)² σb², and not Σ_R a² σb². Terms of a run may differ by less than
the last place U of the partial sums; then these additions round off the same part. The part of a
term x is a sawtooth of x/U, of which the first harmonic, cos(2π x/U), has 6/π² of the variance. Its
mean over two terms with a spread s is exp(−(2π s/U)²), the correlation of their roundings, and

    Σ mₗ = n + Σ_R |R| (|R| − 1) exp(−(2π s_R/U)²)

Shapes: (..., I, n) @ (..., n, O) -> (..., I, O), and vectors as np.matmul takes them.
"""

from typing import Any

import numpy as np

from gradaudit.numerics.arithmetic import Array
from gradaudit.numerics.dispatch import handles
from gradaudit.numerics.partial_sums import (
    SHORT,
    in_order,
    multiplicities,
    repeating,
    runs_of_equal_rows,
)
from gradaudit.numerics.precision import binade
from gradaudit.numerics.rounded import Part, Rounded, operands, plus, round_once, squared
from gradaudit.numerics.simulated import Simulated

IN_TURN = 48
"""Last columns of a product that kernels may sum in two alternating accumulators: three vectors."""

CACHED = 2**15
"""Elements of a product that are summed together, so that their partial sums stay in the cache."""


def _in_order_of_product(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a @ b and Σ sₖ² of its sums in the order of their terms, both (..., I, O)."""
    n, columns = a.shape[-1], b.shape[-1]
    shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], columns)
    a = a.reshape(-1, n) if b.ndim == 2 else a
    value = np.empty(shape if b.ndim > 2 else (len(a), columns))
    squares = np.empty(value.shape)
    step = len(value) if b.ndim > 2 else CACHED // max(columns, 1) + 1
    for i in range(0, len(value), step):
        rows = slice(i, i + step) if b.ndim == 2 else slice(None)

        def block(start: int, end: int, out: np.ndarray, rows: slice = rows) -> None:
            np.matmul(a[rows][..., start:end], b[..., start:end, :], out=out)

        squares[rows] = in_order(block, n, value[rows])
    return value.reshape(shape), squares.reshape(shape)


def _product(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, Part]:
    """Return a @ b and Σ sₖ² in the order of its terms, or None for fewer than SHORT terms.

    With two alternating accumulators, e of the even terms and o of the odd ones, s = e + o is the
    partial sum and d = e − o that of terms with alternating signs. Σ (eₖ² + oₖ²) over half as many
    k is then Σ (sₖ² + dₖ²) / 4 over all. The larger of the two orders counts.
    """
    n = a.shape[-1]
    if n < SHORT:
        return a @ b, None
    value, squares = _in_order_of_product(a, b)
    signs = np.where(np.arange(n) % 2, -1.0, 1.0)
    last = squares[..., -IN_TURN:]
    in_turn = _in_order_of_product(a, b[..., -IN_TURN:] * signs[:, None])[1]
    in_turn += last
    in_turn /= 4
    np.copyto(last, in_turn, where=in_turn > last)
    return value, squares


@handles(np.matmul)
def _matmul(x: Any, y: Any) -> Rounded:
    a, b = operands(x, y)
    if a.ndim == 1 or b.ndim == 1:
        wide = _matmul(a[None] if a.ndim == 1 else a, b[:, None] if b.ndim == 1 else b)
        return wide.reshape((a.value @ b.value).shape)
    return _accumulated(a, b, a.precision.matmul_roundoff)


def contraction(a: Array, b: Array) -> Array:
    """Return a @ b, two or more axes each, as the framework's einsum computes it."""
    if isinstance(a, Simulated) and isinstance(b, Simulated):
        return a.contraction(b)
    if not isinstance(a, Rounded):
        return a @ b
    x, y = operands(a, b)
    return _accumulated(x, y, a.precision.contraction_roundoff)


def _accumulated(a: Rounded, b: Rounded, roundoff: float) -> Rounded:
    """Return a @ b. roundoff: u of the accumulator."""
    p, n = a.precision, a.shape[-1]
    if p.bound:
        return _accumulated_at_least(a, b, roundoff)
    value, squares = _product(a.value, b.value)
    size = np.abs(value) if squares is None else np.maximum(np.abs(value), np.sqrt(squares / n))
    last_place = 2 * roundoff * binade(size)
    variance, count = _errors_of_terms(a, b, roundoff, last_place)
    if n > 1:
        per_addition = p.variance(roundoff) * count  # m n u²
        from_sum = value**2  # in place from here on
        from_sum *= per_addition / 9
        if variance is not None:
            from_sum += variance
        variance = from_sum
        if squares is not None:
            squares *= per_addition / (3 * n)
            np.copyto(variance, squares, where=squares > variance)
    kink = plus(
        None if a.kink is None else a.kink @ np.abs(b.value),
        None if b.kink is None else np.abs(a.value) @ b.kink,
    )
    return round_once(value, variance, kink, p)


def _accumulated_at_least(a: Rounded, b: Rounded, roundoff: float) -> Rounded:
    """Return what `_accumulated` does, by float32 products, without what may only raise σ."""
    p, n = a.precision, a.shape[-1]
    value = a.value @ b.value
    per_product = (1 / 3 + n / 18) * p.variance(roundoff) if n > 1 else 0.0
    of_a = a.variance
    if per_product:
        own = a.squares * np.float32(per_product)
        of_a = own if of_a is None else np.add(own, of_a, out=own)
    variance = None if of_a is None else of_a @ b.squares
    if b.variance is not None:
        starts = runs_of_equal_rows(b.value)
        if starts is None:
            from_b = a.squares @ b.variance
        else:
            together = np.add.reduceat(a.value, starts, axis=-1)
            from_b = squared(together, a) @ b.variance[starts]
        variance = from_b if variance is None else np.add(variance, from_b, out=variance)
    if n > 1:
        own = squared(value, a)
        own *= np.float32(p.variance(roundoff) / 9) * np.count_nonzero(a.value, -1)[..., None]
        in_columns = np.count_nonzero(b.value, -2)
        if (in_columns < n).any():  # terms that are 0 make no rounding
            own *= (in_columns / n).astype(np.float32)[..., None, :]
        variance = own if variance is None else np.add(variance, own, out=variance)
    return round_once(value, variance, None, p)


def _errors_of_terms(
    a: Rounded, b: Rounded, roundoff: float, last_place: np.ndarray
) -> tuple[Part, int | np.ndarray]:
    """Return the walk's sum over the terms, Σₗ mₗ [...], and Σₗ mₗ = m n.

    roundoff: u of the accumulator.
    last_place: the unit in the last place of the whole sum or, if larger, of its partial sums.

    Products repeat at most as often as factors in the row of A, and as those in the column of B:
    the smaller of each of the two sums counts.
    """
    p, n = a.precision, a.shape[-1]
    aa, bb = a.value**2, b.value**2
    per_product = 2 * p.variance(p.product_roundoff)
    if n > 1:
        per_product += (1 / 3 + n / 18) * p.variance(roundoff)
    in_runs = _errors_in_runs(a, b, per_product, last_place)
    columns = np.swapaxes(b.value, -1, -2)
    if n > 1 and repeating(columns) and repeating(a.value):
        factor = plus(per_product * bb, b.variance)
        in_rows, in_columns = multiplicities(a.value), multiplicities(columns)
        in_columns = np.swapaxes(in_columns, -1, -2)
        by_a, by_b = (aa * in_rows) @ factor, aa @ (factor * in_columns)
        if a.variance is not None:
            by_a += (a.variance * in_rows) @ bb
            by_b += a.variance @ (bb * in_columns)
        count = np.minimum(
            np.sum(in_rows * (a.value != 0), axis=-1, keepdims=True),
            np.sum(in_columns * (b.value != 0), axis=-2, keepdims=True),
        )
        repeated = np.minimum(by_a, by_b)
        if in_runs is None:
            return repeated, count
        return np.maximum(repeated, in_runs[0]), np.maximum(count, in_runs[1])
    if in_runs is not None:
        return in_runs
    own = plus(b.variance, per_product * bb if per_product else None)
    variance = None if own is None else aa @ own
    if a.variance is not None:
        from_a = a.variance @ bb
        if variance is not None:
            from_a += variance
        variance = from_a
    return variance, n


def _errors_in_runs(
    a: Rounded, b: Rounded, per_product: float, last_place: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return what `_errors_of_terms` does where rows of B are equal in runs; else None."""
    starts = runs_of_equal_rows(b.value)
    if starts is None:
        return None
    bb = b.value**2
    found = a.value**2 @ (per_product * bb)
    if b.variance is not None:
        found += np.add.reduceat(a.value, starts, axis=-1) ** 2 @ b.variance[starts]
    if a.variance is not None:
        found += a.variance @ bb
    return found, _alike(a.value, b.value[starts], starts, last_place)


def _alike(a: np.ndarray, b: np.ndarray, starts: np.ndarray, last_place: np.ndarray) -> np.ndarray:
    """Return Σₗ mₗ for terms that are alike within runs: aᵢₗ bₗⱼ with one bₗⱼ in each run.

    Terms that are 0 make no rounding.

    a: (..., n); b: (runs, O); last_place: (..., O), as the result.
    """
    lengths = np.diff(starts, append=a.shape[-1])
    mean = np.add.reduceat(a, starts, axis=-1) / lengths
    spread = np.sqrt(np.add.reduceat((a - np.repeat(mean, lengths, -1)) ** 2, starts, -1) / lengths)
    count = np.full(last_place.shape, float(a.shape[-1]))
    with np.errstate(all="ignore"):
        for run, length in enumerate(lengths):
            apart = spread[..., run, None] * np.abs(b[run]) / last_place
            rounds = np.isfinite(apart) & (mean[..., run, None] != 0) & (b[run] != 0)
            alike = np.where(rounds, np.exp(-((2 * np.pi * apart) ** 2)), 0.0)
            count += length * (length - 1) * alike
    return count
