"""Clipping: min(max(x, low), high)."""

from collections.abc import Callable

import numpy as np

from gradaudit.numerics import chained_through
from gradaudit.numerics.arithmetic import Array


def clipped(x: Array, low: float, high: float) -> tuple[Array, Callable[[Array], Array]]:
    """Return y = min(max(x, low), high) and its VJP.

    VJP:   dx = dy where low ≤ x ≤ high, 0 elsewhere.
    Kinks: low and high, at which dy goes through.
    """

    def vjp(dy: Array) -> Array:
        return chained_through(x, dy, np.where((x >= low) & (x <= high), dy, 0.0))

    return np.clip(x, low, high), vjp
