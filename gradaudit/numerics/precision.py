"""The precisions in which frameworks compute, described by what rounding in them does."""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Precision:
    """One floating-point arithmetic of the framework.

    roundoff: unit roundoff u, the largest relative error of one rounding.
    sum_roundoff: u of the accumulator of a sum.
    product_roundoff: u to which the factors of a matrix product are rounded first; 0 for none.
    matmul_roundoff: u of the accumulator of a matrix product.
    smallest: the absolute error of a result that underflows.
    largest: the largest finite number.
    """

    name: str
    roundoff: float
    sum_roundoff: float
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

    def variance(self, roundoff: float) -> float:
        """Return the variance of one rounding relative to its result, for a unit roundoff.

        A float64 audit counts it twice: the float64 reference makes the same roundings again.
        """
        return roundoff**2 * (2.0 if self.name == "float64" else 1.0)


def binade(value: np.ndarray) -> np.ndarray:
    """Return 2^⌊log₂|value|⌋, and 0 at 0: the exponent bits of a float64 alone."""
    return (np.asarray(value).view(np.uint64) & np.uint64(0x7FF0000000000000)).view(np.float64)


def _precision(
    name: str, bits: int, smallest: float, largest: float, sums: int, products: int
) -> Precision:
    return Precision(name, 2.0**-bits, 2.0**-sums, 0.0, 2.0**-products, smallest, largest)


# TensorFlow flushes subnormals to zero on its CPU threads, so an underflow in float32 may cost the
# smallest normal number; float16 keeps them. Half-precision matrix products accumulate in float32,
# and so do bfloat16 sums, but float16 sums do not: `benchmarks/calibrate_rounding.py` measures it.
_FLOAT32 = _precision("float32", 24, 2.0**-126, 2.0**128 * (1 - 2.0**-24), 24, 24)

PRECISIONS: dict[str, Precision] = {
    "float64": _precision("float64", 53, 2.0**-1022, 2.0**1023, 53, 53),
    "float32": _FLOAT32,
    "tensorfloat32": replace(_FLOAT32, name="tensorfloat32", product_roundoff=2.0**-11),
    "float16": _precision("float16", 11, 2.0**-25, 65504.0, 11, 24),
    "bfloat16": _precision("bfloat16", 8, 2.0**-126, 2.0**128 * (1 - 2.0**-8), 24, 24),
}
