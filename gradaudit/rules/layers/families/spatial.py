"""Layers over spatial axes: where their channels are, their margins, their windows.

Rules are derived for channels on the last axis.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from gradaudit.numerics.arithmetic import Array
from gradaudit.rules.context import LayerCall
from gradaudit.rules.primitives.margins import Margins
from gradaudit.rules.primitives.windows import Windows

FIRST = {"data_format": "channels_first"}

Cotangents = dict[str, Array]
Vjp = Callable[[Array], Array]
LayerVjp = Callable[[Array], tuple[Array, Cotangents]]


def channels_last(layer: Any, x: Array) -> Array:
    """Return a layer's input with its channels on the last axis."""
    if layer.data_format != "channels_first":
        return x
    return np.transpose(x, (0, *range(2, x.ndim), 1))


def channels_back(layer: Any, y: Array) -> Array:
    """Return channels from the last axis to where the layer has them."""
    if layer.data_format != "channels_first":
        return y
    return np.transpose(y, (0, y.ndim - 1, *range(1, y.ndim - 1)))


def with_channels_last(
    layer: Any, x: Array, forward: Callable[[Array], tuple[Array, Vjp]]
) -> tuple[Array, LayerVjp]:
    """Return y and the VJP of a layer without weights, by forward(x) -> (y, vjp) of channels last.

    forward's VJP returns dx alone.
    """
    y, vjp = forward(channels_last(layer, x))

    def layer_vjp(dy: Array) -> tuple[Array, Cotangents]:
        return channels_back(layer, vjp(channels_last(layer, dy))), {}

    return channels_back(layer, y), layer_vjp


def activated(call: LayerCall, z: Array, linear_vjp: LayerVjp) -> tuple[Array, LayerVjp]:
    """Return y = f(z + bias) and its VJP, from a convolution z, channels last, and its VJP.

    linear_vjp: dz to (dx, cotangents of weights by name), channels last.
    VJP: dz = f'(z + bias) dy; dbias = Σ dz over all axes but the channels; then linear_vjp(dz).
    """
    bias = call.weights.get("bias")
    y, activation_vjp = call.activate(channels_back(call.layer, z if bias is None else z + bias))

    def vjp(dy: Array) -> tuple[Array, Cotangents]:
        dz = channels_last(call.layer, activation_vjp(dy))
        dx, cotangents = linear_vjp(dz)
        if bias is not None:
            cotangents = {**cotangents, "bias": dz.reshape(-1, dz.shape[-1]).sum(axis=0)}
        return channels_back(call.layer, dx), cotangents

    return y, vjp


def pooled(
    call: LayerCall, x: Array, pool: Callable[[Array, Windows], tuple[Array, Vjp]]
) -> tuple[Array, LayerVjp]:
    """Return y and the VJP of a layer that pools its windows by pool(x, windows) -> (y, vjp)."""
    layer = call.layer

    def forward(x: Array) -> tuple[Array, Vjp]:
        windows = Windows.over(x.shape[1:-1], layer.pool_size, layer.strides, layer.padding)
        return pool(x, windows)

    return with_channels_last(layer, x, forward)


def all_cells(layer: Any, x: Array) -> tuple[Array, int, tuple[int, ...]]:
    """Return x with its spatial axes as one, which axis that is, and the shape of what is pooled.

    Shapes: (N, cells, C), or channels first (N, C, cells).
    """
    if layer.data_format == "channels_first":
        cells, axis = x.reshape(*x.shape[:2], -1), 2
        ones = (*x.shape[:2], *[1] * (x.ndim - 2))
    else:
        cells, axis = x.reshape(x.shape[0], -1, x.shape[-1]), 1
        ones = (x.shape[0], *[1] * (x.ndim - 2), x.shape[-1])
    return cells, axis, ones if layer.keepdims else cells.shape[:axis] + cells.shape[axis + 1 :]


def margins(layer: Any, widths: Any, ndim: int) -> Margins:
    """Return the widths before and after along each axis of a layer's input of `ndim` axes.

    widths: a pair for each spatial axis, or one pair if there is one spatial axis.
    """
    spatial = [widths] if ndim == 3 else list(widths)
    if getattr(layer, "data_format", "channels_last") == "channels_first":
        return [(0, 0), (0, 0), *spatial]
    return [(0, 0), *spatial, (0, 0)]
