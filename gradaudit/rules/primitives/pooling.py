"""Largest and mean values of windows, for any number of spatial axes; channels are last."""

from collections.abc import Callable

import numpy as np

from gradaudit.numerics import chained_through, numbers
from gradaudit.numerics.arithmetic import Array
from gradaudit.rules.primitives.windows import Tap, Windows

Vjp = Callable[[Array], Array]


def max_pool(x: Array, windows: Windows) -> tuple[Array, Vjp]:
    """Return y (N, *count, C), the largest of the cells that each window sees, and its VJP."""
    return largest(x, windows)[:2]


def largest(x: Array, windows: Windows) -> tuple[Array, Vjp, Vjp]:
    """Return what `max_pool` does, and a function that selects from d those cells: d at argmax x.

    Shapes: x and d (N, *cells, C), the rest (N, *count, C).
    VJP: a running largest value; at each tap `better` says where the tap's cell replaces it. From
    the last tap to the first, a better cell takes the cotangent that is left: of equal cells the
    first one has it. Cells that are equal to the last digit, such as a ReLU's zeros, are equal
    without doubt: rounding does not decide between them, and either choice is right.
    """
    at = windows.at(x)
    first, *others = windows.taps
    y, seen = at(first), windows.inside(first)
    better: dict[Tap, Array] = {}
    for tap in others:
        cell, here = at(tap), windows.inside(tap)
        equal = numbers(cell) == numbers(y)
        better[tap] = ((cell > y) & ~equal | ~seen) & here
        larger = np.where(seen, np.maximum(cell, y), cell)
        y = larger if here.all() else np.where(here, larger, y)
        seen = seen | here

    def vjp(dy: Array) -> Array:
        parts, left = [], chained_through(y, dy, dy)
        for tap in reversed(others):
            taken, rest = np.where(better[tap], left, 0.0), np.where(better[tap], 0.0, left)
            parts.append(windows.placed(chained_through(y, dy, taken))(tap))
            left = chained_through(y, dy, rest)
        return np.stack([*parts, windows.placed(left)(first)]).sum(axis=0)

    def selected(d: Array) -> Array:
        at = windows.at(d)
        kept = at(first)
        for tap in others:
            kept = np.where(better[tap], at(tap), kept)
        return kept

    return y, vjp, selected


def average_pool(x: Array, windows: Windows, cells: Array) -> tuple[Array, Vjp]:
    """Return y (N, *count, C), the mean of the cells that each window sees, and its VJP.

    cells: `windows.filled`, in x's precision: cells outside are not counted.
    y = Σₜ at(x, t) / cells; dx = Σₜ placed(dy / cells, t).
    """
    at = windows.at(x)

    def vjp(dy: Array) -> Array:
        put = windows.placed(dy / cells)
        return np.stack([put(tap) for tap in windows.taps]).sum(axis=0)

    return np.stack([at(tap) for tap in windows.taps]).sum(axis=0) / cells, vjp
