"""Margins around an array: cutting them off and adding zeros are each other's transposes."""

from collections.abc import Callable

import numpy as np

from gradaudit.numerics.arithmetic import Array

Margins = list[tuple[int, int]]
"""The widths (before, after) along each axis."""


def crop(x: Array, widths: Margins) -> tuple[Array, Callable[[Array], Array]]:
    """Return x without its margins, and the VJP: dx is dy between zeros."""
    return _cut(x, widths), lambda dy: np.pad(dy, widths)


def pad(x: Array, widths: Margins) -> tuple[Array, Callable[[Array], Array]]:
    """Return x between margins of zeros, and the VJP: dx is dy without the margins."""
    return np.pad(x, widths), lambda dy: _cut(dy, widths)


def _cut(x: Array, widths: Margins) -> Array:
    kept = zip(widths, x.shape, strict=True)
    return x[tuple(slice(before, size - after) for (before, after), size in kept)]
