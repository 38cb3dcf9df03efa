"""The largest elements along an axis, and the share of each in the cotangent of their maximum."""

from collections.abc import Callable

import numpy as np

from gradaudit.numerics import chained_through, numbers
from gradaudit.numerics.arithmetic import Array
from gradaudit.rules.primitives.constants import constant


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
    wins = (x >= rival) | (bare == numbers(rival))
    # In bare numbers an element is the largest or not: where that is in doubt, any part may be its.
    share = constant(1.0 / np.sum(bare >= numbers(rival), axis=axis, keepdims=True), like=x)

    def vjp(dy: Array) -> Array:
        part = np.where(wins, dy * share, dy)
        return chained_through(most, dy, np.where(wins, part, 0.0))

    return vjp
