"""Choosing elements of two arrays by a condition."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gradaudit.numerics.arithmetic import Array
from gradaudit.rules.primitives.broadcasting import unbroadcast


def where(condition: Any, a: Any, b: Any) -> tuple[Array, Callable[[Array], tuple[Any, Any]]]:
    """Return y = a where the condition holds and b elsewhere, and its VJP: dy to (da, db).

    condition: truth values, or a Decision. a, b: arrays or Python numbers; a number's cotangent is
        the sum of its elements' ones.
    VJP: da = dy where the condition holds, db = dy elsewhere, 0 otherwise; each summed over the
        axes of broadcasting.
    """

    def vjp(dy: Array) -> tuple[Array, Array]:
        da, db = np.where(condition, dy, 0.0), np.where(condition, 0.0, dy)
        return unbroadcast(da, getattr(a, "shape", ())), unbroadcast(db, getattr(b, "shape", ()))

    return np.where(condition, a, b), vjp
