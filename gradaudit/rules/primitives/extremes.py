"""The largest elements along an axis, and the share of each in the cotangent of their maximum."""

from collections.abc import Callable

import numpy as np

from gradaudit.numerics import Rounded, chained_through, numbers
from gradaudit.numerics.arithmetic import Array
from gradaudit.numerics.ties import Convention
from gradaudit.rules.primitives.constants import constant


def ties_of(x: Array) -> Convention:
    """Return which subgradient exact ties take in the arithmetic of an array."""
    ties = x.precision.ties if isinstance(x, Rounded) else None
    return ties or Convention()


def chosen(x: Array, axis: int) -> np.ndarray | None:
    """Return which element along an axis takes all at a tie; None where equal ones share."""
    bare, n, extremes = numbers(x), x.shape[axis], ties_of(x).extremes
    if extremes not in ("first", "last"):
        return None
    at = np.argmax(bare, axis)
    if extremes == "last":
        at = n - 1 - np.argmax(np.flip(bare, axis), axis)
    place = np.arange(n).reshape([n if i == axis % x.ndim else 1 for i in range(x.ndim)])
    return np.expand_dims(at, axis) == place


def shared_by_largest(x: Array, axis: int) -> Callable[[Array], Array]:
    """Return the VJP of y = max x along an axis: each of k equal largest elements takes dy / k.

    An element is compared with the largest of the others: with itself it would always be in doubt.
    Elements that are equal to the last digit were made alike, and are equal without doubt.

    Shapes: dy as x, but of length 1 along the axis.
    """
    n = x.shape[axis]
    if n == 1:
        return lambda dy: dy
    bare, ordered = numbers(x), np.sort(x, axis)
    most = bare.max(axis=axis, keepdims=True)  # NaN where any element is
    place = np.arange(n).reshape([n if i == axis % x.ndim else 1 for i in range(x.ndim)])
    is_first = np.expand_dims(np.argmax(bare, axis), axis) == place
    rival = np.where(is_first, np.take(ordered, [n - 2], axis), np.take(ordered, [n - 1], axis))
    tied, taken = bare == numbers(rival), chosen(x, axis)
    wins = (x >= rival) | tied
    # In bare numbers an element is the largest or not: where that is in doubt, any part may be its.
    count = np.sum(bare >= numbers(rival), axis=axis, keepdims=True)
    if taken is not None:
        wins, count = wins & (~tied | taken), np.ones(count.shape)
    share = constant(1.0 / count, like=x)

    def vjp(dy: Array) -> Array:
        part = np.where(wins, dy * share, dy)
        return chained_through(most, dy, np.where(wins, part, 0.0))

    return vjp
