"""GlobalMaxPooling1D, GlobalMaxPooling2D and GlobalMaxPooling3D."""

from keras import layers

from gradaudit.rules.layers.families.spatial import FIRST, all_cells
from gradaudit.rules.primitives.extremes import shared_by_largest
from gradaudit.rules.registry import Case, rule

_Pool1D = layers.GlobalMaxPooling1D
_Pool2D = layers.GlobalMaxPooling2D
_Pool3D = layers.GlobalMaxPooling3D


@rule(
    _Pool1D,
    cases=[
        Case("channels last", lambda: _Pool1D(), (2, 5, 3), kinks=(0.0,)),
        Case("dimensions kept", lambda: _Pool1D(keepdims=True), (2, 5, 3), ties=True),
        Case("channels first", lambda: _Pool1D(**FIRST), (2, 3, 5), ties=True),
        Case("one cell", lambda: _Pool1D(), (2, 1, 3)),
    ],
    source="keras/src/layers/pooling/global_max_pooling1d.py",
)
@rule(
    _Pool2D,
    cases=[
        Case("channels last", lambda: _Pool2D(), (2, 4, 3, 3), kinks=(0.0,)),
        Case("dimensions kept", lambda: _Pool2D(keepdims=True), (2, 4, 3, 3), ties=True),
        Case("channels first", lambda: _Pool2D(keepdims=True, **FIRST), (2, 3, 4, 2), ties=True),
    ],
    source="keras/src/layers/pooling/global_max_pooling2d.py",
)
@rule(
    _Pool3D,
    cases=[
        Case("channels last", lambda: _Pool3D(), (2, 2, 3, 2, 3), kinks=(0.0,)),
        Case("dimensions kept", lambda: _Pool3D(keepdims=True), (2, 2, 3, 2, 3), ties=True),
        Case("channels first", lambda: _Pool3D(**FIRST), (2, 3, 2, 3, 2), ties=True),
    ],
    source="keras/src/layers/pooling/global_max_pooling3d.py",
)
def global_max_pooling(call, x):
    """Apply y = the largest of all cells of a channel.

    Shapes: x (N, *cells, C), y (N, C), with 1 in the place of each of cells where they are kept;
            channels first: x (N, C, *cells).
    VJP:    dx = dy / m at the m cells that are largest, 0 elsewhere.
    Kinks:  where two cells are the largest: each has an equal part of the cotangent.
    """
    cells, axis, shape = all_cells(call.layer, x)
    vjp = shared_by_largest(cells, axis)

    def layer_vjp(dy):
        kept = dy.reshape([1 if i == axis else n for i, n in enumerate(cells.shape)])
        return vjp(kept).reshape(x.shape), {}

    return cells.max(axis=axis).reshape(shape), layer_vjp
