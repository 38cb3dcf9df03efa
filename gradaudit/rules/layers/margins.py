"""Margins around spatial axes: cutting them off and adding zeros are each other's transposes."""

import numpy as np

from gradaudit.numerics.arithmetic import Array

Margins = list[tuple[int, int]]


def margins(layer, widths, ndim: int) -> Margins:
    """Return how much stands before and after along each axis of the layer's input.

    widths: a pair for each spatial axis, or one pair where there is but one axis.
    """
    spatial = [widths] if ndim == 3 else list(widths)
    if getattr(layer, "data_format", "channels_last") == "channels_first":
        return [(0, 0), (0, 0), *spatial]
    return [(0, 0), *spatial, (0, 0)]


def crop(x: Array, off: Margins) -> Array:
    """Cut margins off."""
    kept = zip(off, x.shape, strict=True)
    return x[tuple(slice(before, size - after) for (before, after), size in kept)]


def pad(x: Array, on: Margins) -> Array:
    """Add margins of zeros."""
    return np.pad(x, on)
