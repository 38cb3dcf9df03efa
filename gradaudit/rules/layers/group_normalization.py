"""GroupNormalization."""

from keras import layers

from gradaudit.rules.layers.families.precision import at_least_single, wide_dtype
from gradaudit.rules.primitives.moments import normalize
from gradaudit.rules.registry import Case, rule

_GN = layers.GroupNormalization


@rule(
    layers.GroupNormalization,
    cases=[
        Case("two groups", lambda: _GN(2), (3, 5, 4)),
        Case("rows", lambda: _GN(2), (3, 6)),
        Case("one group", lambda: _GN(1), (3, 2, 2, 4)),
        Case("instance", lambda: _GN(-1), (3, 5, 4)),
        Case("channels first", lambda: _GN(2, axis=1), (3, 4, 5)),
        Case("inner axis", lambda: _GN(2, axis=-2), (2, 3, 4, 2)),
        Case("large mean", lambda: _GN(2), (3, 5, 4), inputs="offset"),
        Case("no center", lambda: _GN(2, center=False), (3, 5, 4)),
        Case("no scale", lambda: _GN(2, scale=False), (3, 5, 4)),
        Case("neither, epsilon", lambda: _GN(2, center=False, scale=False, epsilon=0.5), (3, 5, 4)),
    ],
    source="keras/src/layers/normalization/group_normalization.py",
    weights=("gamma", "beta"),
    autocast=False,
)
def group_normalization(call, x):
    """Apply y = (x − m) gamma / √(v + epsilon) + beta, m and v the moments of a sample's group.

    Shapes: x and y alike, with C channels on the layer's axis, laid out in (G, C / G); gamma and
            beta (C,); m and v one for each sample and group.
    VJP:    that of `normalize`.
    Kinks:  none.
    """
    layer, shape = call.layer, x.shape
    at = layer.axis % x.ndim
    within = (layer.groups, shape[at] // layer.groups)
    along = (1,) * at + within + (1,) * (x.ndim - at - 1)
    axes = tuple(i for i in range(1, x.ndim + 1) if i != at)
    wide = wide_dtype(call, x)
    gamma, beta = (
        call.arithmetic.cast(call.weights[name], wide).reshape(along)
        if name in call.weights
        else None
        for name in ("gamma", "beta")
    )

    def forward(x):
        grouped = x.reshape(shape[:at] + within + shape[at + 1 :])
        y, y_vjp = normalize(grouped, axes, gamma, beta, layer.epsilon)

        def vjp(dy):
            dx, cotangents = y_vjp(dy.reshape(grouped.shape))
            return dx.reshape(shape), {name: d.reshape(-1) for name, d in cotangents.items()}

        return y.reshape(shape), vjp

    return at_least_single(call, forward, x)
