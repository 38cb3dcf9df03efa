"""GlobalAveragePooling1D, GlobalAveragePooling2D and GlobalAveragePooling3D."""

import numpy as np
from keras import layers

from gradaudit.rules.layers.families.spatial import FIRST, all_cells
from gradaudit.rules.registry import Case, rule

_MASK = {"mask": np.array([[True, False, True, True], [False, True, False, False]])}


def _cases(pool, *cells, which="", **options):
    return [
        Case(which + "channels last", pool, (2, *cells, 3), **options),
        Case(which + "dimensions kept", lambda: pool(keepdims=True), (2, *cells, 3), **options),
        Case(which + "channels first", lambda: pool(**FIRST), (2, 3, *cells), **options),
        Case(which + "both", lambda: pool(keepdims=True, **FIRST), (2, 3, *cells), **options),
    ]


_Pool1D = layers.GlobalAveragePooling1D


@rule(
    _Pool1D,
    cases=[*_cases(_Pool1D, 5), *_cases(_Pool1D, 4, which="mask, ", arguments=_MASK)],
    source="keras/src/layers/pooling/global_average_pooling1d.py",
    mask=lambda call, x, mask: None,
)
@rule(
    layers.GlobalAveragePooling2D,
    cases=_cases(layers.GlobalAveragePooling2D, 4, 3),
    source="keras/src/layers/pooling/global_average_pooling2d.py",
)
@rule(
    layers.GlobalAveragePooling3D,
    cases=_cases(layers.GlobalAveragePooling3D, 2, 3, 2),
    source="keras/src/layers/pooling/global_average_pooling3d.py",
)
def global_average_pooling(call, x):
    """Apply y = Σ x / n over the n cells of a channel; with a mask, over those it leaves.

    Shapes: x (N, *cells, C), y (N, C), with 1 in the place of each of cells where they are kept;
            channels first: x (N, C, *cells). mask (N, cells).
    VJP:    dx = dy / n, 0 where masked.
    Kinks:  none.
    """
    cells, axis, shape = all_cells(call.layer, x)
    mask = call.arguments.get("mask")
    if mask is None:
        y, n = cells.mean(axis=axis), cells.shape[axis]
    else:
        left = np.expand_dims(np.asarray(mask, bool), 3 - axis)
        n = call.array(left.sum(axis=axis))
        y = np.where(left, cells, 0.0).sum(axis=axis) / n

    def vjp(dy):
        part = np.expand_dims(dy.reshape(y.shape) / n, axis)
        dx = np.broadcast_to(part, cells.shape) if mask is None else np.where(left, part, 0.0)
        return dx.reshape(x.shape), {}

    return y.reshape(shape), vjp
