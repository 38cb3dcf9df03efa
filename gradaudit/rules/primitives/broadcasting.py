"""Broadcasting, and the sums that undo it in a VJP."""

from collections.abc import Callable

import numpy as np

from gradaudit.numerics.arithmetic import Array


def unbroadcast(dy: Array, shape: tuple[int, ...]) -> Array:
    """Return Σ dy over the axes along which an array of `shape` was broadcast to dy's shape."""
    new = dy.ndim - len(shape)
    axes = tuple(range(new)) + tuple(
        axis for axis, size in enumerate(shape, new) if size == 1 and dy.shape[axis] != 1
    )
    return dy.sum(axis=axes).reshape(shape) if axes else dy


def broadcast(x: Array, shape: tuple[int, ...]) -> tuple[Array, Callable[[Array], Array]]:
    """Return x broadcast to a shape, and its VJP: dx = Σ dy over the broadcast axes."""
    return np.broadcast_to(x, shape), lambda dy: unbroadcast(dy, x.shape)
