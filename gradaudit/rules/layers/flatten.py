"""Flatten."""

import numpy as np
from keras import layers

from gradaudit.rules.registry import Case, rule


@rule(
    layers.Flatten,
    cases=[
        Case("2-D", lambda: layers.Flatten(), (3, 2)),
        Case("4-D", lambda: layers.Flatten(), (2, 3, 4, 2)),
        Case("channels first", lambda: layers.Flatten(data_format="channels_first"), (2, 3, 4, 2)),
    ],
    source="keras/src/layers/reshaping/flatten.py",
    integers=True,
)
def flatten(call, x):
    """Lay each sample out in one row, channels last.

    Shapes: x (N, ...), or (N, C, ...) with channels first; y (N, product of the other axes).
    VJP:    dx is dy, laid back.
    Kinks:  none.
    """
    moved = x
    if call.layer.data_format == "channels_first" and x.ndim > 1:
        moved = np.transpose(x, (0, *range(2, x.ndim), 1))

    def vjp(dy):
        dx = dy.reshape(moved.shape)
        if moved is not x:
            dx = np.transpose(dx, (0, x.ndim - 1, *range(1, x.ndim - 1)))
        return dx, {}

    return moved.reshape(x.shape[0], -1), vjp
