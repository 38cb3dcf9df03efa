"""Reshape."""

from keras import layers

from gradaudit.rules.registry import Case, rule


@rule(
    layers.Reshape,
    cases=[
        Case("2-D", lambda: layers.Reshape((2, 3)), (4, 6)),
        Case("inferred", lambda: layers.Reshape((3, -1, 2)), (2, 4, 3)),
        Case("only inferred", lambda: layers.Reshape((-1,)), (2, 4, 3)),
    ],
    source="keras/src/layers/reshaping/reshape.py",
    integers=True,
)
def reshape(call, x):
    """Lay each sample out anew, in the same order of elements.

    Shapes: x (N, ...), y (N, *target_shape); one -1 is computed from the others.
    VJP:    dx is dy, laid back.
    Kinks:  none.
    """
    y = x.reshape(x.shape[0], *call.layer.target_shape)
    return y, lambda dy: (dy.reshape(x.shape), {})
