"""Other shapes and orders of axes, arrays joined and cut along an axis, and their VJPs."""

from collections.abc import Callable, Sequence

import numpy as np

from gradaudit.numerics.arithmetic import Array

Vjp = Callable[[Array], Array]


def reshape(x: Array, shape: Sequence[int]) -> tuple[Array, Vjp]:
    """Return x in another shape, elements in the same order; dx = dy in x's shape."""
    return np.reshape(x, tuple(shape)), lambda dy: dy.reshape(x.shape)


def expand_dims(x: Array, axis: int | Sequence[int]) -> tuple[Array, Vjp]:
    """Return x with new axes of length 1; dx = dy in x's shape."""
    return np.expand_dims(x, axis), lambda dy: dy.reshape(x.shape)


def squeeze(x: Array, axis: int | Sequence[int] | None = None) -> tuple[Array, Vjp]:
    """Return x without axes of length 1, all of them for None; dx = dy in x's shape."""
    axis = tuple(axis) if isinstance(axis, Sequence) else axis
    return np.squeeze(x, axis), lambda dy: dy.reshape(x.shape)


def transpose(x: Array, order: Sequence[int] | None = None) -> tuple[Array, Vjp]:
    """Return x with its axes in another order, reversed for None; dx = dy in the first order."""
    order = range(x.ndim)[::-1] if order is None else order
    return np.transpose(x, order), lambda dy: np.transpose(dy, np.argsort(order))


def concatenate(
    xs: Sequence[Array], axis: int
) -> tuple[Array, Callable[[Array], tuple[Array, ...]]]:
    """Return the xᵢ joined along an axis; dxᵢ is the part of dy that came from xᵢ.

    Shapes: the xᵢ alike but for that axis, along which y has the sum of their lengths.
    """
    axis = axis % xs[0].ndim
    ends = np.cumsum([x.shape[axis] for x in xs]).tolist()
    return np.concatenate(tuple(xs), axis), lambda dy: _parts(dy, ends, axis)


def split(
    x: Array, ends: Sequence[int], axis: int
) -> tuple[tuple[Array, ...], Callable[[Sequence[Array]], Array]]:
    """Return x cut along an axis; dx is the dyₖ joined along it.

    ends: where each part ends, the last at x's length. The VJP takes the dyₖ of all parts.
    """
    axis = axis % x.ndim
    return _parts(x, ends, axis), lambda dys: np.concatenate(tuple(dys), axis)


def stack(xs: Sequence[Array], axis: int) -> tuple[Array, Callable[[Array], tuple[Array, ...]]]:
    """Return the xᵢ joined along a new axis; dxᵢ is the part of dy that came from xᵢ.

    Shapes: the xᵢ alike; y has a new axis, as long as there are xᵢ.
    """
    axis = axis % (xs[0].ndim + 1)
    return np.stack(tuple(xs), axis), lambda dy: _slices(dy, axis)


def unstack(x: Array, axis: int) -> tuple[tuple[Array, ...], Callable[[Sequence[Array]], Array]]:
    """Return the slices of x along an axis, without it; dx is the dyₖ joined along it.

    The VJP takes the dyₖ of all slices.
    """
    axis = axis % x.ndim
    return _slices(x, axis), lambda dys: np.stack(tuple(dys), axis)


def _parts(x: Array, ends: Sequence[int], axis: int) -> tuple[Array, ...]:
    before = (slice(None),) * axis
    spans = zip([0, *ends], ends, strict=False)
    return tuple(x[(*before, slice(start, end))] for start, end in spans)


def _slices(x: Array, axis: int) -> tuple[Array, ...]:
    before = (slice(None),) * axis
    return tuple(x[(*before, i)] for i in range(x.shape[axis]))
