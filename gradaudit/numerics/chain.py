"""The chain rule for one elementwise factor, where the slope may be infinite."""

import numpy as np

from gradaudit.numerics.arithmetic import Array, numbers
from gradaudit.numerics.rounded import Rounded


def chained(dy: Array, slope: Array) -> Array:
    """Return dy · slope, and exactly 0 where dy is exactly 0, also where the slope is not finite.

    No change of the argument reaches the loss where its cotangent is 0, so the chain rule gives 0:
    √x at 0 in a branch that `where` did not take has an infinite slope that nobody asks for. A
    cotangent that is 0 only up to rounding errors makes infinity · 0 = NaN here, as anywhere.

    Shapes: dy and slope broadcast.
    """
    if np.isfinite(numbers(slope)).all():
        return dy * slope
    return dy * np.where(_is_zero(dy), 1.0, slope)


def divided(dy: Array, by: Array) -> Array:
    """Return dy / by, and exactly 0 where dy is exactly 0, also where by is 0 or not finite.

    It is `chained` for a slope 1 / by, with the one rounding of a quotient.

    Shapes: dy and by broadcast.
    """
    bare = numbers(by)
    if (np.isfinite(bare) & (bare != 0)).all():
        return dy / by
    return dy / np.where(_is_zero(dy), 1.0, by)


def _is_zero(dy: Array) -> np.ndarray:
    """Return where an array is 0 without a rounding error and without a kink."""
    zero = numbers(dy) == 0
    if isinstance(dy, Rounded):
        for part in (dy.variance, dy.kink):
            zero = zero if part is None else zero & (part == 0)
    return zero
