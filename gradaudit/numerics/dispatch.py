"""The table of the NumPy functions that `Rounded` arrays support.

`Rounded.__array_ufunc__` and `Rounded.__array_function__` look functions up here and refuse those
that are not in the table. Each rule registers itself with `handles`, next to its code:

    elementwise.py      sums, products and quotients of elements, powers, elementary functions
    choices.py          comparisons, where, maximum, minimum, clip, sign, max, min, sort
    sums.py             sum, mean, cumsum
    products.py         matmul
    moves.py            functions that only move or repeat elements, concatenate, stack
    linear_systems.py   solve, inv, det, slogdet, cholesky
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from gradaudit.errors import UnsupportedFunctionError

Function = Callable[..., Any]

RULES: dict[Function, Function] = {}
"""NumPy function -> rule: takes the same arguments, returns `Rounded` arrays or a `Decision`."""

MOVES: tuple[Function, ...] = (
    np.reshape,
    np.transpose,
    np.swapaxes,
    np.expand_dims,
    np.squeeze,
    np.broadcast_to,
    np.take_along_axis,
    np.flip,
    np.moveaxis,
    np.pad,
    np.repeat,
    np.roll,
    np.take,
    np.tile,
    np.lib.stride_tricks.sliding_window_view,
)
"""Functions of one array that only move or repeat elements: they make no rounding error."""


def handles(*functions: Function) -> Callable[[Function], Function]:
    """Register the decorated function as the rule of one or several NumPy functions."""

    def register(rule: Function) -> Function:
        RULES.update(dict.fromkeys(functions, rule))
        return rule

    return register


def unsupported(what: str) -> UnsupportedFunctionError:
    """Return the error for a function without a rule; `what` names it."""
    return UnsupportedFunctionError(
        f"{what} was called on a Rounded array, and it has no rounding rule. "
        "Write the rule with another NumPy function, or register a rounding rule for it with "
        "`handles` of gradaudit/numerics/dispatch.py."
    )
