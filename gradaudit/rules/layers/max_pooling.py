"""MaxPooling1D, MaxPooling2D and MaxPooling3D."""

from keras import layers, ops

from gradaudit.rules.layers.families.spatial import FIRST, pooled
from gradaudit.rules.primitives.pooling import max_pool
from gradaudit.rules.registry import Case, rule

_Pool1D, _Pool2D, _Pool3D = layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D


def _planes_first(layer, x, **mode):
    """Pool planes and then their depth in float64, for which TensorFlow has no other kernel."""
    if ops.dtype(x) != "float64":
        return layer(x, **mode)
    n, depth, *plane, channels = x.shape
    flat = {"padding": layer.padding, "data_format": "channels_last"}
    x = ops.reshape(x, (n * depth, *plane, channels))
    x = ops.max_pool(x, layer.pool_size[1:], layer.strides[1:], **flat)
    _, *plane, channels = x.shape
    x = ops.reshape(x, (n, depth, -1, channels))
    x = ops.max_pool(x, (layer.pool_size[0], 1), (layer.strides[0], 1), **flat)
    return ops.reshape(x, (n, -1, *plane, channels))


@rule(
    _Pool1D,
    cases=[
        Case("valid", lambda: _Pool1D(2), (2, 7, 3), kinks=(0.0,)),
        Case("same, partly filled", lambda: _Pool1D(3, 2, "same"), (2, 6, 3), kinks=(0.0,)),
        Case("overlapping", lambda: _Pool1D(3, 1, "same"), (2, 5, 3), ties=True),
        Case("strides over the window", lambda: _Pool1D(2, 3), (2, 8, 3)),
        Case("channels first", lambda: _Pool1D(2, **FIRST), (2, 3, 6), ties=True),
    ],
    source="keras/src/layers/pooling/max_pooling1d.py",
)
@rule(
    _Pool2D,
    cases=[
        Case("valid", lambda: _Pool2D(2), (2, 5, 4, 3), kinks=(0.0,)),
        Case("same, partly filled", lambda: _Pool2D(3, 2, "same"), (2, 6, 5, 2), kinks=(0.0,)),
        Case("overlapping", lambda: _Pool2D((3, 2), 1), (2, 5, 4, 2), ties=True),
        Case("negative at the edge", lambda: _Pool2D(4, 3, "same"), (2, 5, 4, 2), kinks=(-1.0,)),
        Case("strides over the window", lambda: _Pool2D((1, 2), (2, 3)), (2, 5, 5, 2)),
        Case("channels first", lambda: _Pool2D(2, **FIRST), (2, 3, 4, 5), ties=True),
    ],
    source="keras/src/layers/pooling/max_pooling2d.py",
)
@rule(
    _Pool3D,
    cases=[
        Case("valid", lambda: _Pool3D(2), (2, 4, 2, 4, 2), kinks=(0.0,), apply=_planes_first),
        Case(
            "same, partly filled",
            lambda: _Pool3D((2, 3, 2), 2, "same"),
            (2, 3, 4, 3, 2),
            kinks=(-1.0,),
            apply=_planes_first,
        ),
        Case("overlapping", lambda: _Pool3D(2, 1), (2, 3, 2, 3, 2), apply=_planes_first),
    ],
    source="keras/src/layers/pooling/max_pooling3d.py",
)
def max_pooling(call, x):
    """Apply y = max over t of at(x, t), over the taps t of each window that lie inside.

    Shapes: x (N, *cells, C), y (N, *count, C); channels first: x (N, C, *cells), y (N, C, *count).
    VJP:    dx = Σₜ placed(dy where t is the first tap of the largest value, t).
    Kinks:  where two cells of a window are the largest; the first one has the cotangent.
    """
    return pooled(call, x, max_pool)
