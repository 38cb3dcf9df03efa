"""The precisions in which frameworks compute, described by what rounding in them does."""

import math
from dataclasses import dataclass, replace


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

    def nearest(self, number: float) -> float:
        """Return the number of this precision that is nearest to `number`."""
        if number == 0 or not math.isfinite(number):
            return number
        mantissa, exponent = math.frexp(number)
        return math.ldexp(round(mantissa / self.roundoff) * self.roundoff, exponent)

    def variance(self, roundoff: float) -> float:
        """Return the variance of one rounding relative to its result, for a unit roundoff.

        A float64 audit counts it twice: the float64 reference makes the same roundings again.
        """
        return roundoff**2 * (2.0 if self.name == "float64" else 1.0)


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
