"""Sums, means, largest and smallest elements, products and Euclidean norms over axes.

Each takes the axes, None for all, and whether they stay with length 1, and returns y and its VJP.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from gradaudit.numerics import divided
from gradaudit.numerics.arithmetic import Array
from gradaudit.rules.primitives.extremes import shared_by_largest

Axes = int | Sequence[int] | None
Reduced = tuple[Array, Callable[[Array], Array]]


def total(x: Array, axes: Axes = None, keepdims: bool = False) -> Reduced:
    """Return y = Σ x over axes, and its VJP: dx = dy, broadcast."""
    axes = _places(axes, x.ndim)

    def vjp(dy: Array) -> Array:
        return np.broadcast_to(_kept(dy, x, axes), x.shape)

    return np.sum(x, axis=axes, keepdims=keepdims), vjp


def mean(x: Array, axes: Axes = None, keepdims: bool = False) -> Reduced:
    """Return y = Σ x / n over axes with n elements, and its VJP: dx = dy / n, broadcast."""
    axes = _places(axes, x.ndim)
    n = math.prod(x.shape[axis] for axis in axes)

    def vjp(dy: Array) -> Array:
        return np.broadcast_to(_kept(dy, x, axes) / n, x.shape)

    return np.mean(x, axis=axes, keepdims=keepdims), vjp


def largest(x: Array, axes: Axes = None, keepdims: bool = False) -> Reduced:
    """Return y = max x over axes, and its VJP: dx = dy / k at each of the k largest, 0 elsewhere.

    Kinks: ties, between which dy is shared.
    """
    axes = _places(axes, x.ndim)
    return np.max(x, axis=axes, keepdims=keepdims), _shared(x, x, axes)


def smallest(x: Array, axes: Axes = None, keepdims: bool = False) -> Reduced:
    """Return y = min x over axes, and its VJP: dx = dy / k at each of the k smallest, 0 elsewhere.

    Kinks: ties, between which dy is shared.
    """
    axes = _places(axes, x.ndim)
    return np.min(x, axis=axes, keepdims=keepdims), _shared(x, -x, axes)


def product(x: Array, axes: Axes = None, keepdims: bool = False) -> Reduced:
    """Return y = Π x over axes, and its VJP: dx = dy times the product of the other elements."""
    axes = sorted(_places(axes, x.ndim))
    rows, back = _as_rows(x, axes)
    n, one = rows.shape[-1], np.ones_like(rows[..., 0])
    before, after = [one], [one]
    for i in range(n):
        before.append(before[-1] * rows[..., i])
        after.append(after[-1] * rows[..., n - 1 - i])

    def vjp(dy: Array) -> Array:
        d = dy.reshape(rows.shape[:-1])
        return back(np.stack([d * before[i] * after[n - 1 - i] for i in range(n)], -1))

    return before[-1].reshape(_shape(x, axes, keepdims)), vjp


def norm(x: Array, axes: Axes = None, keepdims: bool = False) -> Reduced:
    """Return y = √Σ x² over axes, and its VJP: dx = x dy / y."""
    axes = _places(axes, x.ndim)
    y = np.sqrt(np.square(x).sum(axis=axes, keepdims=True))
    return y.reshape(_shape(x, axes, keepdims)), lambda dy: x * divided(dy.reshape(y.shape), y)


def _places(axes: Axes, ndim: int) -> tuple[int, ...]:
    """Return axes counted from the first one, in the order that they are given in."""
    if axes is None:
        return tuple(range(ndim))
    return tuple(int(axis) % ndim for axis in np.atleast_1d(axes).tolist())


def _shape(x: Array, axes: Sequence[int], keepdims: bool) -> tuple[int, ...]:
    """Return the shape of x reduced over axes."""
    kept = (1 if i in axes else size for i, size in enumerate(x.shape) if keepdims or i not in axes)
    return tuple(kept)


def _kept(dy: Array, x: Array, axes: Sequence[int]) -> Array:
    """Return dy with axes of length 1 where x was reduced."""
    return dy.reshape(_shape(x, axes, True))


def _as_rows(x: Array, axes: Sequence[int]) -> tuple[Array, Callable[[Array], Array]]:
    """Return x with the reduced axes flattened into the last one, and the inverse of that."""
    rest = [axis for axis in range(x.ndim) if axis not in axes]
    order = (*rest, *axes)
    apart = [x.shape[axis] for axis in order]
    n = math.prod(x.shape[axis] for axis in axes)

    def back(rows: Array) -> Array:
        return np.transpose(rows.reshape(apart), np.argsort(order))

    return np.transpose(x, order).reshape((*apart[: len(rest)], n)), back


def _shared(x: Array, ranked: Array, axes: Sequence[int]) -> Callable[[Array], Array]:
    """Return the VJP of an extreme of x, in which dy goes to the largest elements of `ranked`."""
    rows, back = _as_rows(ranked, axes)
    shared = shared_by_largest(rows, -1)
    return lambda dy: back(shared(dy.reshape((*rows.shape[:-1], 1))))
