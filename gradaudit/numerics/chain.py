"""The chain rule for one elementwise factor, where the slope may be infinite, or unknown."""

import numpy as np

from gradaudit.numerics.arithmetic import Array, numbers
from gradaudit.numerics.rounded import Rounded


def chained(dy: Array, slope: Array | float) -> Array:
    """Return dy · slope, and exactly 0 where dy is exactly 0, also where the slope is not finite.

    No change of the argument reaches the loss where its cotangent is 0, so the chain rule gives 0:
    √x at 0 in a branch that `where` did not take has an infinite slope that nobody asks for. A
    cotangent that is 0 only up to rounding errors makes infinity · 0 = NaN here, as anywhere.

    Shapes: dy and slope broadcast.
    """
    if _is_finite(slope).all():
        return dy * slope
    return dy * np.where(_is_zero(dy), 1.0, slope)


def divided(dy: Array, by: Array) -> Array:
    """Return dy / by, and exactly 0 where dy is exactly 0, also where by is 0 or not finite.

    It is `chained` for a slope 1 / by, with the one rounding of a quotient.

    Shapes: dy and by broadcast.
    """
    if (_is_finite(by) & (numbers(by) != 0)).all():
        return dy / by
    return dy / np.where(_is_zero(dy), 1.0, by)


def nan_for_nan(x: Array, y: Array) -> Array:
    """Return y, and NaN where x is NaN.

    A comparison with NaN is false: a function that chooses by comparisons would take a branch for
    NaN, as if it knew on which side of a kink it is.

    Shapes: x broadcasts to y.
    """
    unknown = np.isnan(numbers(x))
    return np.where(unknown, np.nan, y) if unknown.any() else y


def chained_through(x: Array, dy: Array, dx: Array) -> Array:
    """Return dx, but dy times a slope of NaN where x is NaN; see `chained` and `nan_for_nan`.

    dx: the cotangent of x, as comparisons of x chose it. dy: that of the output.

    Shapes: x and dy broadcast to dx.
    """
    unknown = np.isnan(numbers(x))
    if not unknown.any():
        return dx
    return np.where(unknown, np.where(_is_zero(dy), 0.0, np.nan), dx)


def _is_finite(array: Array | float) -> np.ndarray:
    """Return where an array is finite, and its rounding error and kink too."""
    finite = np.isfinite(numbers(array))
    if isinstance(array, Rounded):
        for part in (array.variance, array.kink):
            finite = finite if part is None else finite & np.isfinite(part)
    return finite


def _is_zero(dy: Array) -> np.ndarray:
    """Return where an array is 0 without a rounding error and without a kink."""
    zero = numbers(dy) == 0
    if isinstance(dy, Rounded):
        for part in (dy.variance, dy.kink):
            zero = zero if part is None else zero & (part == 0)
    return zero
