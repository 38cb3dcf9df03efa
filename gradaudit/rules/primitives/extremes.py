"""The largest elements along an axis, and what each takes of the cotangent of their maximum."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gradaudit.numerics.arithmetic import Array


def shared_by_largest(call: Any, x: Array, axis: int) -> Callable[[Array], Array]:
    """Return the VJP of y = max x along an axis: each of k equal largest elements takes dy / k.

    An element is compared with the largest of the others: with itself it would always be in doubt.
    Elements that are equal to the last digit were made alike, and are equal without doubt.

    Shapes: dy as x, but of length 1 along the axis.
    """
    n = x.shape[axis]
    if n == 1:
        return lambda dy: dy
    numbers, ordered = call.numbers(x), np.sort(x, axis)
    place = np.arange(n).reshape([n if i == axis % x.ndim else 1 for i in range(x.ndim)])
    is_first = np.expand_dims(np.argmax(numbers, axis), axis) == place
    rival = np.where(is_first, np.take(ordered, [n - 2], axis), np.take(ordered, [n - 1], axis))
    wins = (x >= rival) | (numbers == call.numbers(rival))
    # In bare numbers an element is the largest or not: where that is in doubt, any part may be its.
    share = call.array(1.0 / np.sum(numbers >= call.numbers(rival), axis=axis, keepdims=True))

    def vjp(dy: Array) -> Array:
        part = np.where(wins, dy * share, dy)
        return np.where(wins, part, 0.0)

    return vjp
