"""Differences to the largest element, the exponents of a softmax."""

from typing import Any

import numpy as np

from gradaudit.numerics.arithmetic import Array
from gradaudit.numerics.rounded import Rounded


def below_largest(z: Array, axis: Any) -> Array:
    """Return y = z − max z along one axis or several, in any arithmetic.

    Error: σ² = σ²(zᵢ) + σ²(max z) + r(yᵢ), but 0 at a unique largest element, which is 0 whatever
    its error. So where a softmax is close to 1, its error is as small as its distance to 1.

    Shapes: z and y are equal; `axis` is an int or a tuple of ints.
    """
    largest = z.max(axis=axis, keepdims=True)
    shifted = z - largest
    if not isinstance(z, Rounded) or shifted.variance is None:
        return shifted
    own = z.value == largest.value
    alone = own & (np.sum(own, axis=axis, keepdims=True) == 1)
    variance = np.where(alone, 0.0, shifted.variance)
    return Rounded(shifted.value, variance, shifted.kink, shifted.precision)
