"""How far elements are below the largest, as softmax has it."""

from typing import Any

import numpy as np

from gradaudit.numerics.arithmetic import Array
from gradaudit.numerics.rounded import Rounded


def below_largest(z: Array, axis: Any) -> Array:
    """Return z − max z along an axis, or several; for any arithmetic.

    The largest is 0 whatever its error; that of the others is the error of both. So the rounding
    error of a softmax that is all but 1 is as small as what is left to 1.
    """
    largest = z.max(axis=axis, keepdims=True)
    shifted = z - largest
    if not isinstance(z, Rounded) or shifted.variance is None:
        return shifted
    own = z.value == largest.value
    alone = own & (np.sum(own, axis=axis, keepdims=True) == 1)
    variance = np.where(alone, 0.0, shifted.variance)
    return Rounded(shifted.value, variance, shifted.kink, shifted.precision)
