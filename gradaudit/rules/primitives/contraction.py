"""A contraction of two arrays, as np.einsum writes it, by one matrix product."""

import math
import string
from collections.abc import Callable

import numpy as np

from gradaudit.errors import UnsupportedModelError
from gradaudit.numerics import contraction
from gradaudit.numerics.arithmetic import Array


def contract(
    equation: str, a: Array, b: Array
) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """Return y of an equation such as "abc,cd->abd", and vjp(dy) -> (da, db).

    A letter in both arrays and in y is a batch axis, one in both but not in y is contracted, one in
    a single array and in y is free; one in a single array alone is summed over beforehand. Laid out
    as A (batch, free, contracted) and B (batch, contracted, free), Y = A B, dA = dY Bᵀ and
    dB = Aᵀ dY. An ellipsis stands for the axes of a or b that have no letters.

    Raises:
        UnsupportedModelError: a letter occurs twice in one array.
    """
    axes_a, axes_b, axes_y = _letters(equation, a.ndim, b.ndim)
    sizes = dict(zip(axes_a + axes_b, a.shape + b.shape, strict=True))
    batch = [axis for axis in axes_y if axis in axes_a and axis in axes_b]
    contracted = [axis for axis in axes_a if axis in axes_b and axis not in axes_y]
    rows = [axis for axis in axes_y if axis not in axes_b]
    columns = [axis for axis in axes_y if axis not in axes_a]
    lay_a, back_a = _layout(axes_a, (batch, rows, contracted), sizes)
    lay_b, back_b = _layout(axes_b, (batch, contracted, columns), sizes)
    lay_y, back_y = _layout(axes_y, (batch, rows, columns), sizes)
    flat_a, flat_b = lay_a(a), lay_b(b)

    def vjp(dy: Array) -> tuple[Array, Array]:
        flat_dy = lay_y(dy)
        da = contraction(flat_dy, np.swapaxes(flat_b, -1, -2))
        return back_a(da), back_b(contraction(np.swapaxes(flat_a, -1, -2), flat_dy))

    return back_y(contraction(flat_a, flat_b)), vjp


def _letters(equation: str, ndim_a: int, ndim_b: int) -> list[str]:
    """Return the letters of both arrays and of the result, those of ellipses written out."""
    given, result = equation.replace(" ", "").split("->")
    parts = given.split(",")
    unused = "".join(sorted(set(string.ascii_letters) - set(equation)))
    elided = [
        ndim - len(part) + 3
        for part, ndim in zip(parts, (ndim_a, ndim_b), strict=True)
        if "..." in part
    ]
    letters = [part.replace("...", unused[: max(elided, default=0)]) for part in (*parts, result)]
    if any(len(set(part)) < len(part) for part in letters):
        raise UnsupportedModelError(
            f"the equation {equation!r} takes a diagonal, which is not derived. Expected each "
            "letter at most once in each array."
        )
    return letters


def _layout(axes: str, groups: tuple[list[str], ...], sizes: dict[str, int]) -> tuple:
    """Return what lays arrays out as (*batch, an axis for each other group), and the transpose."""
    batch, *others = groups
    kept = [axis for group in groups for axis in group]
    present = [axis for axis in axes if axis in kept]
    alone = tuple(i for i, axis in enumerate(axes) if axis not in kept)
    order, back = [present.index(axis) for axis in kept], [kept.index(axis) for axis in present]
    apart, whole = [sizes[axis] for axis in kept], tuple(sizes[axis] for axis in axes)
    flat = apart[: len(batch)] + [math.prod(sizes[axis] for axis in group) for group in others]

    def lay(array: Array) -> Array:
        summed = array.sum(axis=alone) if alone else array
        return np.transpose(summed, order).reshape(flat)

    def transpose(laid: Array) -> Array:
        array = np.transpose(laid.reshape(apart), back)
        return np.broadcast_to(np.expand_dims(array, alone), whole) if alone else array

    return lay, transpose
