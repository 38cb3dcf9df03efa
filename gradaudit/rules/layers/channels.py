"""Where a layer has its channels: rules are derived for those that come last."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gradaudit.numerics.arithmetic import Array

FIRST = {"data_format": "channels_first"}


def channels_last(layer: Any, x: Array) -> Array:
    """Return a layer's input with its channels on the last axis."""
    return np.moveaxis(x, 1, -1) if layer.data_format == "channels_first" else x


def channels_back(layer: Any, y: Array) -> Array:
    """Return channels from the last axis to where the layer has them."""
    return np.moveaxis(y, -1, 1) if layer.data_format == "channels_first" else y


def with_channels_last(layer: Any, x: Array, forward: Callable) -> tuple[Array, Callable]:
    """Return y and the VJP of a layer without weights, by forward(x) -> (y, vjp) of channels last.

    forward's VJP returns dx alone.
    """
    y, vjp = forward(channels_last(layer, x))

    def layer_vjp(dy: Array) -> tuple[Array, dict[str, Array]]:
        return channels_back(layer, vjp(channels_last(layer, dy))), {}

    return channels_back(layer, y), layer_vjp
