"""Rounding rules of elementwise arithmetic: + − × ÷, powers, and the elementary functions.

    y = a ± b    σ² = σa² + σb² + r(y)
    y = a b      σ² = (b σa)² + (a σb)² + r(y)
    y = a / b    σ² = (σa / b)² + (y σb / b)² + c² r(y)         c = 1, of 1 / b RECIPROCAL_ULPS
    y = aᵇ       σ² = (b aᵇ⁻¹ σa)² + (y log a σb)² + c² r(y)    c: POWER_ULPS, RSQRT_ULPS
    y = f(a)     σ² = (f'(a) σa)² + c² r(y)                     c: elementary.py

Kinks are multiplied by the same slopes, in absolute value, and added. Products with a power of two
and quotients by one are exact, and so are −a and |a|. Shapes are those of NumPy, by broadcasting.
"""

import math
from functools import partial
from typing import Any

import numpy as np

from gradaudit.numerics.dispatch import handles
from gradaudit.numerics.elementary import (
    ELEMENTARY,
    POWER_ULPS,
    RECIPROCAL_ULPS,
    RSQRT_ULPS,
)
from gradaudit.numerics.precision import Precision
from gradaudit.numerics.rounded import Rounded, operands, plus, round_once, squared, times


@handles(np.add)
def _add(x: Any, y: Any, sign: float = 1.0) -> Rounded:
    a, b = operands(x, y)
    return round_once(
        a.value + sign * b.value, plus(a.variance, b.variance), plus(a.kink, b.kink), a.precision
    )


@handles(np.subtract)
def _subtract(x: Any, y: Any) -> Rounded:
    return _add(x, y, -1.0)


@handles(np.multiply)
def _multiply(x: Any, y: Any) -> Rounded:
    a, b = operands(x, y)
    return round_once(
        a.value * b.value,
        plus(
            None if a.variance is None else times(a.variance, b.squares),
            None if b.variance is None else times(b.variance, a.squares),
        ),
        plus(
            None if a.kink is None else times(a.kink, np.abs(b.value)),
            None if b.kink is None else times(b.kink, np.abs(a.value)),
        ),
        a.precision,
        ulps=float(not (_power_of_two(x) or _power_of_two(y))),
    )


@handles(np.true_divide)
def _divide(x: Any, y: Any) -> Rounded:
    a, b = operands(x, y)
    quotient = a.value / b.value
    by_a, by_b = np.abs(1 / b.value), np.abs(quotient / b.value)
    return round_once(
        quotient,
        plus(times(a.variance, squared(by_a, a)), times(b.variance, squared(by_b, a))),
        plus(times(a.kink, by_a), times(b.kink, by_b)),
        a.precision,
        ulps=_reciprocal_ulps(a.precision) if _is(x, 1) else float(not _power_of_two(y)),
    )


@handles(np.power)
def _raise(x: Any, y: Any) -> Rounded:
    a, b = operands(x, y)
    power = a.value**b.value
    by_a = np.abs(b.value) * np.where(b.value == 0, 0.0, np.abs(a.value ** (b.value - 1)))
    by_b = np.zeros(())
    if b.variance is not None or b.kink is not None:
        # y log a → 0 at a = 0; a base below 0 has a power only where the exponent is whole: exact
        by_b = np.abs(power * np.where((power == 0) | (a.value < 0), 0.0, np.log(a.value)))
    return round_once(
        power,
        plus(times(a.variance, squared(by_a, a)), times(b.variance, squared(by_b, a))),
        plus(times(a.kink, by_a), times(b.kink, by_b)),
        a.precision,
        ulps=_power_ulps(y, a.precision),
    )


@handles(np.negative)
def _negative(a: Rounded) -> Rounded:
    return Rounded(-a.value, a.variance, a.kink, a.precision)


@handles(np.absolute)
def _absolute(a: Rounded) -> Rounded:
    return Rounded(np.abs(a.value), a.variance, a.kink, a.precision)


def _elementary(ufunc: np.ufunc, a: Rounded) -> Rounded:
    known, precision = ELEMENTARY[ufunc], a.precision
    y = ufunc(a.value)
    slope = known.derivative(a.value, y)
    kink = None if a.kink is None else times(a.kink, np.abs(slope))
    if known.inside is not None and not precision.bound:
        overflows = known.inside(a.value) > precision.largest
        if overflows.any():
            kink = plus(np.where(overflows, np.abs(y), 0.0), kink)
    ulps = known.accuracy(a.value, precision.is_half)
    variance = None if a.variance is None else times(a.variance, squared(slope, a))
    return round_once(y, variance, kink, precision, ulps)


for _ufunc in ELEMENTARY:
    handles(_ufunc)(partial(_elementary, _ufunc))


def _power_of_two(number: Any) -> bool:
    return isinstance(number, (int, float)) and abs(math.frexp(number)[0]) == 0.5


def _is(operand: Any, number: float) -> bool:
    return isinstance(operand, (int, float)) and operand == number


def _reciprocal_ulps(precision: Precision) -> float:
    """Return the accuracy of 1 / x; kernels of half precisions compute it in float32 and round."""
    return 1.0 if precision.is_half else RECIPROCAL_ULPS


def _power_ulps(power: Any, precision: Precision) -> float:
    if _is(power, -0.5):
        return RSQRT_ULPS
    return max(_reciprocal_ulps(precision), POWER_ULPS) if _is(power, -1) else POWER_ULPS
