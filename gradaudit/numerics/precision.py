"""The precisions in which frameworks compute, described by what rounding in them does."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Precision:
    """One floating-point arithmetic of the framework.

    roundoff: unit roundoff u, the largest relative error of one rounding.
    sum_roundoff: u of the accumulator of a sum.
    rows_roundoff: u of the accumulator of a sum over rows, which may be a bias's gradient.
    product_roundoff: u to which the factors of a matrix product are rounded first; 0 for none.
    matmul_roundoff: u of the accumulator of a matrix product.
    smallest: the absolute error of a result that underflows.
    largest: the largest finite number.
    """

    name: str
    roundoff: float
    sum_roundoff: float
    rows_roundoff: float
    product_roundoff: float
    matmul_roundoff: float
    smallest: float
    largest: float

    def nearest(self, value: np.ndarray) -> np.ndarray:
        """Return the numbers of this precision that are nearest to `value`, a float64 array.

        Overflow is left to the caller.
        """
        unit = np.maximum(2 * self.roundoff * binade(value), 2 * self.smallest)
        with np.errstate(all="ignore"):
            return np.where(np.isfinite(value), np.rint(value / unit) * unit, value)

    def accumulator(self, shape: tuple[int, ...], axis: Any) -> float:
        """Return u of the accumulator of a sum of an array of this shape over these axes.

        What keeps one axis of channels, the last one or the second of three or more, may be the
        gradient of a bias, which TensorFlow takes by an operation of its own: BiasAddGrad.
        """
        summed = range(len(shape)) if axis is None else np.atleast_1d(axis) % len(shape)
        kept = [i for i, length in enumerate(shape) if length > 1 and i not in summed]
        channels = (len(shape) - 1, 1 if len(shape) > 2 else -1)
        return self.rows_roundoff if len(kept) == 1 and kept[0] in channels else self.sum_roundoff

    def variance(self, roundoff: float) -> float:
        """Return the variance of one rounding relative to its result, for a unit roundoff.

        A float64 audit counts it twice: the float64 reference makes the same roundings again.
        """
        return roundoff**2 * (2.0 if self.name == "float64" else 1.0)


def binade(value: np.ndarray) -> np.ndarray:
    """Return 2^⌊log₂|value|⌋, and 0 at 0: the exponent bits of a float64 alone."""
    return (np.asarray(value).view(np.uint64) & np.uint64(0x7FF0000000000000)).view(np.float64)


def _precision(
    name: str, bits: int, smallest: float, largest: float, sums: int, rows: int, products: int
) -> Precision:
    u, by_sums, by_rows, by_products = (2.0**-b for b in (bits, sums, rows, products))
    return Precision(name, u, by_sums, by_rows, 0.0, by_products, smallest, largest)


# TensorFlow flushes subnormals to zero on its CPU threads, so an underflow in float32 may cost the
# smallest normal number; float16 keeps them. Half-precision matrix products accumulate in float32.
# Of its two sums over rows, on CPU and without XLA, Sum accumulates bfloat16 in float32 and float16
# in float16, and BiasAddGrad the other way round, row by row: the less accurate one counts, since a
# rule does not say which it means. `benchmarks/calibrate_rounding.py` measures all this.
_FLOAT32 = _precision("float32", 24, 2.0**-126, 2.0**128 * (1 - 2.0**-24), 24, 24, 24)

PRECISIONS: dict[str, Precision] = {
    "float64": _precision("float64", 53, 2.0**-1022, 2.0**1023, 53, 53, 53),
    "float32": _FLOAT32,
    "tensorfloat32": replace(_FLOAT32, name="tensorfloat32", product_roundoff=2.0**-11),
    "float16": _precision("float16", 11, 2.0**-25, 65504.0, 11, 11, 24),
    "bfloat16": _precision("bfloat16", 8, 2.0**-126, 2.0**128 * (1 - 2.0**-8), 24, 8, 24),
}
