"""Constants of the same arithmetic and precision as an array."""

import numpy as np
from numpy.typing import ArrayLike

from gradaudit.numerics import Rounded, Simulated, numbers
from gradaudit.numerics.arithmetic import Array


def constant(value: ArrayLike, like: Array) -> Array:
    """Return a constant as the framework holds it beside an array: in that array's precision."""
    if isinstance(like, Rounded):
        return Rounded.stored(value, like.precision)
    if isinstance(like, Simulated):
        return Simulated(value, like.precision)
    return np.asarray(value, numbers(like).dtype)
