"""Largest and mean values of windows, for any number of spatial axes; channels are last."""

import numpy as np

from gradaudit.rules.layers.channels import with_channels_last
from gradaudit.rules.primitives.windows import Windows


def max_pool(call, x, windows):
    """Return y (N, *count, C), the largest of the cells that each window sees, and its VJP."""
    return largest(call, x, windows)[:2]


def largest(call, x, windows):
    """Return what `max_pool` does, and what takes from an array like x the cells of the largest.

    A running largest value: at each tap better says where the tap's cell takes its place. Back from
    the last tap, a better cell takes what cotangent is left. Of equal cells the first one keeps it.
    Cells that are equal to the last digit were made alike, of a ReLU's zeros or of an even ground:
    no rounding casts doubt on that, and where one framework takes another of them it is no matter.
    """
    at, inside = windows.at(x), windows.at(np.ones((1, *windows.cells, 1), bool))
    first, *others = windows.taps
    y, seen, better = at(first), inside(first), {}
    for tap in others:
        cell, here = at(tap), inside(tap)
        equal = call.numbers(cell) == call.numbers(y)
        better[tap] = ((cell > y) & ~equal | ~seen) & here
        larger = np.where(seen, np.maximum(cell, y), cell)
        y = larger if here.all() else np.where(here, larger, y)
        seen = seen | here

    def vjp(dy):
        parts, left = [], dy
        for tap in reversed(others):
            parts.append(windows.placed(np.where(better[tap], left, 0.0))(tap))
            left = np.where(better[tap], 0.0, left)
        return np.stack([*parts, windows.placed(left)(first)]).sum(axis=0)

    def taken(d):
        at = windows.at(d)
        kept = at(first)
        for tap in others:
            kept = np.where(better[tap], at(tap), kept)
        return kept

    return y, vjp, taken


def average_pool(call, x, windows):
    """Return y (N, *count, C), the mean of the cells that each window sees, and its VJP.

    Cells outside are not counted: y = Σₜ at(x, t) / cells, dx = Σₜ placed(dy / cells, t).
    """
    at, inside = windows.at(x), windows.at(np.ones((1, *windows.cells, 1)))
    cells = call.array(sum(inside(tap) for tap in windows.taps))

    def vjp(dy):
        put = windows.placed(dy / cells)
        return np.stack([put(tap) for tap in windows.taps]).sum(axis=0)

    return np.stack([at(tap) for tap in windows.taps]).sum(axis=0) / cells, vjp


def pool_windows(call, x, pool):
    """Return y and the VJP of a layer that pools its windows with `max_pool` or `average_pool`."""
    layer = call.layer

    def forward(x):
        windows = Windows.over(x.shape[1:-1], layer.pool_size, layer.strides, layer.padding)
        return pool(call, x, windows)

    return with_channels_last(layer, x, forward)


def all_cells(layer, x):
    """Return x with its spatial axes as one, which axis that is, and the shape of what is pooled.

    Shapes: (N, cells, C), or channels first (N, C, cells).
    """
    if layer.data_format == "channels_first":
        cells, axis, ones = x.reshape(*x.shape[:2], -1), 2, (*x.shape[:2], *[1] * (x.ndim - 2))
    else:
        cells, axis = x.reshape(x.shape[0], -1, x.shape[-1]), 1
        ones = (x.shape[0], *[1] * (x.ndim - 2), x.shape[-1])
    return cells, axis, ones if layer.keepdims else cells.shape[:axis] + cells.shape[axis + 1 :]
