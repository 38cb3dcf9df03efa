"""Matrix products."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gradaudit.numerics.arithmetic import Array
from gradaudit.rules.primitives.broadcasting import unbroadcast


def matmul(
    a: Array, b: Array, wanted: tuple[bool, bool] = (True, True)
) -> tuple[Array, Callable[[Array], tuple[Any, Any]]]:
    """Return y = a @ b, as np.matmul has it, and its VJP: dy to (da, db).

    Shapes: a (..., I, J), b (..., J, K), y (..., I, K); one axis less where a or b has but one.
    VJP:    da = dy bᵀ and db = aᵀ dy, summed over the axes of broadcasting.

    wanted: whose cotangents are asked for; the VJP returns None for the others.
    """
    wide_a = a.reshape(1, -1) if a.ndim == 1 else a
    wide_b = b.reshape(-1, 1) if b.ndim == 1 else b
    wide = wide_a @ wide_b
    shape = wide.shape if b.ndim > 1 else wide.shape[:-1]
    shape = shape if a.ndim > 1 else (*wide.shape[:-2], *shape[len(wide.shape) - 1 :])

    def vjp(dy: Array) -> tuple[Any, Any]:
        dwide, da, db = dy.reshape(wide.shape), None, None
        if wanted[0]:
            da = unbroadcast(dwide @ np.swapaxes(wide_b, -1, -2), wide_a.shape).reshape(a.shape)
        if wanted[1]:
            db = unbroadcast(np.swapaxes(wide_a, -1, -2) @ dwide, wide_b.shape).reshape(b.shape)
        return da, db

    return wide.reshape(shape), vjp
