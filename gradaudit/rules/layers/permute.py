"""Permute."""

import numpy as np
from keras import layers

from gradaudit.rules.registry import Case, rule


@rule(
    layers.Permute,
    cases=[
        Case("two axes", lambda: layers.Permute((2, 1)), (2, 3, 4)),
        Case("a cycle", lambda: layers.Permute((2, 3, 1)), (2, 3, 4, 5)),
        Case("nothing", lambda: layers.Permute((1,)), (2, 3)),
    ],
    source="keras/src/layers/reshaping/permute.py",
    integers=True,
)
def permute(call, x):
    """Change the order of each sample's axes.

    Shapes: x (N, ...); axis i of y is axis dims[i] of x, counted from 1.
    VJP:    dx is dy with its axes in x's order.
    Kinks:  none.
    """
    axes = (0, *call.layer.dims)
    back = [axes.index(axis) for axis in range(x.ndim)]
    return np.transpose(x, axes), lambda dy: (np.transpose(dy, back), {})
