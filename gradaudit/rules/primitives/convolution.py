"""Convolution over any number of spatial axes as matrix products of patches.

x (N, *cells, C), kernel (*size, C / groups, O), y (N, *count, O); at and placed of the windows:

    y          = Σₜ at(x, t) kernel[t]           convolve
    dx         = Σₜ placed(dy, t) kernel[t]ᵀ     convolve_transposed
    dkernel[t] = at(x, t)ᵀ dy                    kernel_cotangent

With several groups, each one convolves its own C / groups channels to its own O / groups.
"""

import math
from collections.abc import Callable

import numpy as np

from gradaudit.numerics.arithmetic import Array
from gradaudit.rules.primitives.windows import Tap, Windows

BLOCK = 2**20
"""Numbers in the patches of one matrix product: samples are taken in blocks, to fit a cache."""


def convolution(
    x: Array, kernel: Array, windows: Windows, groups: int = 1
) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """Return y of `convolve`, and its VJP: dy to (dx, dkernel)."""

    def vjp(dy: Array) -> tuple[Array, Array]:
        dx = convolve_transposed(dy, kernel, windows, groups)
        return dx, kernel_cotangent(x, dy, windows, groups)

    return convolve(x, kernel, windows, groups), vjp


def convolve(x: Array, kernel: Array, windows: Windows, groups: int = 1) -> Array:
    """Return y (N, *count, O) of x (N, *cells, C) and kernel (*size, C / groups, O)."""
    return _product(x, lambda block: windows.at(block), kernel, windows, groups)


def convolve_transposed(dy: Array, kernel: Array, windows: Windows, groups: int = 1) -> Array:
    """Return dx (N, *cells, C) of dy (N, *count, O) and kernel (*size, C / groups, O)."""
    *size, channels, filters = kernel.shape
    apart = kernel.reshape(-1, channels, groups, filters // groups)
    swapped = np.swapaxes(apart, 1, 3).reshape(*size, filters // groups, groups * channels)
    return _product(dy, lambda block: windows.placed(block), swapped, windows, groups)


def kernel_cotangent(x: Array, dy: Array, windows: Windows, groups: int = 1) -> Array:
    """Return dkernel (*size, C / groups, O) of x (N, *cells, C) and dy (N, *count, O)."""
    at, rows = windows.at(x), _by_group(dy, groups)
    taps = [np.swapaxes(_by_group(at(tap), groups), 1, 2) @ rows for tap in windows.taps]
    apart = np.moveaxis(np.stack(taps), 1, 2)  # (taps, C / groups, groups, O / groups)
    return apart.reshape(*windows.size, x.shape[-1] // groups, dy.shape[-1])


def depthwise(
    x: Array, kernel: Array, windows: Windows
) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """Return y (N, *count, C m) of x (N, *cells, C) and kernel (*size, C, m), and its VJP.

    y[…, c m + j] = Σₜ at(x, t)[…, c] kernel[t, c, j]: a convolution of C groups.
    VJP: dy to (dx, dkernel).
    """
    y, grouped_vjp = convolution(x, grouped_kernel(kernel), windows, kernel.shape[-2])

    def vjp(dy: Array) -> tuple[Array, Array]:
        dx, dkernel = grouped_vjp(dy)
        return dx, dkernel.reshape(kernel.shape)

    return y, vjp


def grouped_kernel(kernel: Array) -> Array:
    """Return a depthwise kernel (*size, C, m) as that of C groups, (*size, 1, C m)."""
    *size, channels, multiplier = kernel.shape
    return kernel.reshape(*size, 1, channels * multiplier)


def _by_group(x: Array, groups: int) -> Array:
    """Return x (..., C) as (groups, rows, C / groups)."""
    return np.moveaxis(x.reshape(-1, groups, x.shape[-1] // groups), 1, 0)


def _product(
    x: Array,
    through: Callable[[Array], Callable[[Tap], Array]],
    kernel: Array,
    windows: Windows,
    groups: int,
) -> Array:
    """Return Σₜ through(x)(t) kernel[t]; kernel (*size, I, O), the result (N, ..., O)."""
    inputs, outputs = kernel.shape[-2:]
    apart = kernel.reshape(-1, inputs, groups, outputs // groups)
    matrices = np.moveaxis(apart, 2, 0).reshape(groups, -1, outputs // groups)
    patch = max(math.prod(windows.cells), math.prod(windows.count)) * matrices.shape[1] * groups
    samples = max(1, BLOCK // patch)

    def block(x: Array) -> Array:
        view = through(x)
        patches = np.stack([view(tap) for tap in windows.taps], axis=-2)
        lead = patches.shape[:-2]
        apart = patches.reshape(math.prod(lead), -1, groups, inputs)
        rows = np.moveaxis(apart, 2, 0).reshape(groups, len(apart), -1)
        return np.moveaxis(rows @ matrices, 0, 1).reshape(*lead, outputs)

    return np.concatenate([block(x[i : i + samples]) for i in range(0, len(x), samples)])
