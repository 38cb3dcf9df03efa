"""Functions that only move elements, take some of them or repeat them, and their VJP."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gradaudit.numerics import scatter_add
from gradaudit.numerics.arithmetic import Array


def moved(x: Array, move: Callable[[Any], Any]) -> tuple[Array, Callable[[Array], Array]]:
    """Return y = move(x), and its VJP: dx is Σ dy over the places that an element went to.

    move: takes an array of x's shape. It is applied to an array of places, too, to find where each
        element goes.
    """
    places = move(np.arange(x.size).reshape(x.shape)).reshape(-1)
    n = places.size
    came_from = np.full(x.size, n)
    came_from[places] = np.arange(n)
    once = np.array_equal(came_from[places], np.arange(n))

    def vjp(dy: Array) -> Array:
        flat = dy.reshape(-1)
        if not once:
            dx = scatter_add(flat, places, x.size)
        elif n < x.size:  # an element that went nowhere takes the 0 after the last
            dx = np.pad(flat, [(0, 1)])[came_from]
        else:
            dx = flat[came_from]
        return dx.reshape(x.shape)

    return move(x), vjp
