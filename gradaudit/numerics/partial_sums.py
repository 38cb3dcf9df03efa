"""What the error of a long sum depends on: Σ sₖ² of its partial sums, and multiplicities of terms.

The rounding model (rounded.py) derives why. Everything here is float64 arithmetic on bare arrays.
"""

from collections.abc import Callable

import numpy as np

SHORT = 16
"""Number of terms from which the partial sums are computed in the order of the terms."""

UNBROKEN = 300
"""Terms that kernels add without a break: longer sums may begin again half way."""


REPEATING = 1.25
"""Mean multiplicity of the terms of a sum from which it is counted."""


def in_order(
    block: Callable[[int, int, np.ndarray], object], n: int, value: np.ndarray
) -> np.ndarray:
    """Write the sums of n terms into `value`, and return Σₖ sₖ² in the order of the terms.

    Σ sₖ² is the trapezoidal rule over the ends of 4 to 16 blocks, n/count Σ' s² with half weight at
    the last: its mean is right where the order within a block is random. Sums of more than UNBROKEN
    terms may begin again half way; the larger of the two Σ sₖ² counts.

    block: block(start, end, out) writes the sums of the terms start to end − 1 into `out`.
    Shapes: value and the result (...), one element per sum. Error: none is modelled.
    """
    count = 2 * min(max(n // 256, 2), 8)
    block(0, n // count, value)
    squares, part = value**2, np.empty(value.shape)
    middle, again = value, None  # of a sum that begins again half way
    for i in range(1, count):
        block(n * i // count, n * (i + 1) // count, part)
        value += part
        if again is not None:
            np.subtract(value, middle, out=part)
            np.multiply(part, part, out=part)
            again += part if i + 1 < count else part / 2
        np.multiply(value, value, out=part)
        if n > UNBROKEN and i + 1 == count // 2:
            middle, again = value.copy(), squares + part / 2
        squares += part if i + 1 < count else part / 2
    if again is not None:
        np.copyto(squares, again, where=again > squares)  # keeps NaN
    squares *= n / count
    return squares


def repeating(terms: np.ndarray) -> bool:
    """Return whether some sum has equal terms other than 0, judged by a sample of the sums.

    True where a row of the sample has a mean multiplicity above REPEATING.

    terms: (..., n), the terms of each sum along the last axis.
    """
    n = terms.shape[-1]
    sums = terms.reshape(-1, n)
    with np.errstate(all="ignore"):
        sample = sums[:: len(sums) // 16 + 1, :: n // 65536 + 1].astype(np.float32)
    sample.sort()
    if not np.any((sample[:, 1:] == sample[:, :-1]) & (sample[:, 1:] != 0)):
        return False
    return bool(np.any(np.sum((_runs(sample) - REPEATING) * (sample != 0), axis=-1) > 0))


def multiplicities(terms: np.ndarray) -> np.ndarray:
    """Return mᵢ, how often each term occurs in its sum; both (..., n), sums along the last axis.

    Terms are equal if they are equal in float32: float64 products of equal rows may differ in the
    last bit.
    """
    with np.errstate(all="ignore"):
        keys = terms.astype(np.float32, order="C").reshape(-1, terms.shape[-1])
    order = np.argsort(keys, axis=-1)
    repeats = np.empty(keys.shape)
    np.put_along_axis(repeats, order, _runs(np.take_along_axis(keys, order, -1)), -1)
    return repeats.reshape(terms.shape)


def runs_of_equal_rows(b: np.ndarray) -> np.ndarray | None:
    """Return where runs of equal rows of B begin; None where these are not long, as mostly.

    The gradient of a mean over positions, for instance, is the same for all of them.
    """
    n = len(b)
    if b.ndim != 2 or n < SHORT or not b.size or np.count_nonzero(b[1:, 0] != b[:-1, 0]) > n // 2:
        return None
    begins = np.ones(n, bool)
    begins[1:] = np.any(b[1:] != b[:-1], axis=1)
    return np.flatnonzero(begins) if np.count_nonzero(begins) <= n // 2 else None


def _runs(ordered: np.ndarray) -> np.ndarray:
    """Return for each element of sorted rows (R, n) how many elements of its row equal it."""
    first = np.ones(ordered.shape, bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    lengths = np.diff(np.flatnonzero(first), append=first.size)
    return np.repeat(lengths, lengths).reshape(ordered.shape)
