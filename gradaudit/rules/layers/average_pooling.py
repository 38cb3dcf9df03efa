"""AveragePooling1D, AveragePooling2D and AveragePooling3D."""

import functools

from keras import layers

from gradaudit.rules.layers.families.spatial import FIRST, pooled
from gradaudit.rules.primitives.pooling import average_pool
from gradaudit.rules.registry import Case, rule

_Pool1D = layers.AveragePooling1D
_Pool2D = layers.AveragePooling2D
_Pool3D = layers.AveragePooling3D
_compiled = functools.partial(Case, compiled=True)


@rule(
    _Pool1D,
    cases=[
        Case("valid", lambda: _Pool1D(3), (2, 7, 3)),
        Case("same, partly filled", lambda: _Pool1D(3, 2, "same"), (2, 6, 3)),
        Case("overlapping", lambda: _Pool1D(3, 1, "same"), (2, 5, 3)),
        Case("strides over the window", lambda: _Pool1D(2, 3), (2, 8, 3)),
        Case("channels first", lambda: _Pool1D(2, **FIRST), (2, 3, 6)),
    ],
    source="keras/src/layers/pooling/average_pooling1d.py",
)
@rule(
    _Pool2D,
    cases=[
        Case("valid", lambda: _Pool2D((3, 2)), (2, 6, 4, 3)),
        Case("same, partly filled", lambda: _Pool2D(3, 2, "same"), (2, 6, 5, 2)),
        Case("overlapping", lambda: _Pool2D((3, 2), 1), (2, 5, 4, 2)),
        Case("channels first", lambda: _Pool2D(3, 1, "same", **FIRST), (2, 3, 4, 5)),
    ],
    source="keras/src/layers/pooling/average_pooling2d.py",
)
@rule(
    _Pool3D,
    cases=[
        _compiled("valid", lambda: _Pool3D((1, 2, 3)), (2, 2, 4, 3, 2)),
        _compiled("same, partly filled", lambda: _Pool3D((2, 3, 2), 2, "same"), (2, 3, 4, 3, 2)),
        _compiled("channels first", lambda: _Pool3D(2, 1, "same", **FIRST), (2, 3, 2, 3, 2)),
    ],
    source="keras/src/layers/pooling/average_pooling3d.py",
)
def average_pooling(call, x):
    """Apply y = Σₜ at(x, t) / cells, over the taps t of each window that lie inside: cells of them.

    Shapes: x (N, *cells, C), y (N, *count, C); channels first: x (N, C, *cells), y (N, C, *count).
    VJP:    dx = Σₜ placed(dy / cells, t).
    Kinks:  none.
    """
    return pooled(call, x, lambda x, windows: average_pool(x, windows, call.array(windows.filled)))
