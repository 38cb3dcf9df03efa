"""The precisions in which frameworks compute, described by their rounding errors."""

import math
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np

from gradaudit.numerics.ties import Convention


@dataclass(frozen=True)
class Precision:
    """One floating-point arithmetic of the framework.

    roundoff: unit roundoff u, the largest relative error of one rounding.
    sum_roundoff: u of the accumulator of a sum.
    rows_roundoff: u of the accumulator of a sum over rows, which may be the gradient of a bias.
    product_roundoff: u to which the factors of a matrix product are rounded first; 0 for none.
    matmul_roundoff: u of the accumulator of a matrix product.
    contraction_roundoff: u of that of an einsum, which has kernels of its own.
    smallest: absolute error of a result that underflows.
    largest: largest finite number.
    ties: which subgradient exact ties take; None for the framework's.
    bound: σ is a lower bound that costs little, see `BOUND`. Variances are then in units of u².
    """

    name: str
    roundoff: float
    sum_roundoff: float
    rows_roundoff: float
    product_roundoff: float
    matmul_roundoff: float
    contraction_roundoff: float
    smallest: float
    largest: float
    ties: Convention | None = None
    bound: bool = False

    @property
    def is_half(self) -> bool:
        """Whether this is float16 or bfloat16, with fewer bits than float32."""
        return self.roundoff > 2.0**-24

    def nearest(self, value: np.ndarray | np.float64) -> np.ndarray:
        """Return the numbers of this precision nearest to `value` (float64), of its shape.

        rint(value / unit) unit, with unit = max(2 h(value), 2 smallest), so ties go to even, and
        infinities and NaN stay. Overflow is left to the caller: the result may exceed `largest`.
        """
        unit = np.maximum(2 * self.roundoff * binade(value), 2 * self.smallest)
        with np.errstate(all="ignore"):
            return np.where(np.isfinite(value), np.rint(value / unit) * unit, value)

    def accumulator(self, shape: tuple[int, ...], axis: Any) -> float:
        """Return u of the accumulator that sums an array of `shape` over `axis` (None: all axes).

        A sum that keeps one axis of channels, the last one or the second of three or more, may be
        the gradient of a bias, which TensorFlow computes by an op of its own: BiasAddGrad.
        """
        summed = range(len(shape)) if axis is None else np.atleast_1d(axis) % len(shape)
        kept = [i for i, length in enumerate(shape) if length > 1 and i not in summed]
        channels = (len(shape) - 1, 1 if len(shape) > 2 else -1)
        return self.rows_roundoff if len(kept) == 1 and kept[0] in channels else self.sum_roundoff

    @overload
    def variance(self, roundoff: float) -> float: ...
    @overload
    def variance(self, roundoff: np.ndarray) -> np.ndarray: ...
    def variance(self, roundoff: float | np.ndarray) -> float | np.ndarray:
        """Return u², the square of the relative error of one rounding to unit roundoff `roundoff`.

        In float64 it is 2 u²: the float64 reference makes the same roundings as the framework.
        """
        if self.bound:
            return (roundoff / self.roundoff) ** 2
        return roundoff**2 * (2.0 if self.name == "float64" else 1.0)


def binade(value: np.ndarray | np.float64) -> np.ndarray:
    """Return 2^⌊log₂|value|⌋, and 0 at 0, of value's shape: a float64's exponent bits alone."""
    return (np.asarray(value).view(np.uint64) & np.uint64(0x7FF0000000000000)).view(np.float64)


def _precision(
    name: str, bits: int, smallest: float, largest: float, sums: int, rows: int, products: int
) -> Precision:
    u, by_sums, by_rows, by_products = (2.0**-b for b in (bits, sums, rows, products))
    return Precision(name, u, by_sums, by_rows, 0.0, by_products, by_products, smallest, largest)


# TensorFlow's CPU threads flush subnormals to zero, so an underflow in float32 may cost the
# smallest normal number; float16 keeps subnormals. Half-precision matrix products accumulate in
# float32. There are two sums over rows, on CPU without XLA: Sum accumulates bfloat16 in float32 and
# float16 in float16; BiasAddGrad accumulates row by row, bfloat16 in bfloat16 and float16 in
# float32. A rule does not say which of the two it means, so the less accurate one counts.
# Source: measured by `benchmarks/calibrate_rounding.py`.
_FLOAT32 = _precision("float32", 24, 2.0**-126, 2.0**128 * (1 - 2.0**-24), 24, 24, 24)

PRECISIONS: dict[str, Precision] = {
    "float64": _precision("float64", 53, 2.0**-1022, 2.0**1023, 53, 53, 53),
    "float32": _FLOAT32,
    "tensorfloat32": replace(_FLOAT32, name="tensorfloat32", product_roundoff=2.0**-11),
    "float16": _precision("float16", 11, 2.0**-25, 65504.0, 11, 11, 24),
    "bfloat16": _precision("bfloat16", 8, 2.0**-126, 2.0**128 * (1 - 2.0**-8), 24, 8, 24),
}

BOUND = replace(_FLOAT32, bound=True)
"""float32 where a lower bound of σ will do: float32 variances of the errors of single operations.

Left out is what can only make σ larger: partial sums of products in the order of their terms, most
terms that are alike, kinks, constants that the precision does not hold. What is within a few such σ
is within as many σ.
"""

HALF_SUMS: dict[str, Precision] = {
    name: replace(each, contraction_roundoff=each.roundoff)
    for name, each in PRECISIONS.items()
    if each.is_half
}
"""The half precisions where Einsum accumulates in them, as it does on CPU without oneDNN."""

UNBOUNDED: dict[str, Precision] = {
    name: replace(each, largest=math.inf) for name, each in PRECISIONS.items() if each.is_half
}
"""The half precisions without a largest number, to tell what overflows from what is infinite."""
