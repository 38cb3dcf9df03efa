"""LayerNormalization."""

from keras import layers

from gradaudit.rules.layers.families.precision import at_least_single, wide_dtype
from gradaudit.rules.primitives.moments import moments, normalize
from gradaudit.rules.primitives.scaling import inverse_root, scaled
from gradaudit.rules.registry import Case, rule

_LN = layers.LayerNormalization


@rule(
    layers.LayerNormalization,
    cases=[
        Case("last axis", lambda: _LN(), (4, 5)),
        Case("two axes", lambda: _LN(axis=[1, 3]), (3, 2, 4, 3)),
        Case("inner axis", lambda: _LN(axis=1), (3, 4, 2)),
        Case("negative axes", lambda: _LN(axis=(-1, -2)), (3, 4, 2)),
        Case("no center", lambda: _LN(center=False), (4, 3, 5)),
        Case("no scale", lambda: _LN(scale=False), (4, 5)),
        Case("neither", lambda: _LN(center=False, scale=False), (4, 5)),
        Case("epsilon", lambda: _LN(epsilon=0.5), (4, 5)),
        Case("large mean", lambda: _LN(), (4, 5), inputs="offset"),
        Case("x by its deviation", lambda: _LN(rms_scaling=True), (4, 5)),
        Case(
            "x by its deviation over two axes",
            lambda: _LN(axis=[1, 2], rms_scaling=True),
            (3, 2, 4, 3),
        ),
        Case("large mean by its deviation", lambda: _LN(rms_scaling=True), (4, 5), inputs="offset"),
        Case("neither by deviation", lambda: _LN(rms_scaling=True, scale=False), (4, 5)),
    ],
    source="keras/src/layers/normalization/layer_normalization.py",
    weights=("gamma", "beta"),
    autocast=False,
)
def layer_normalization(call, x):
    """Apply y = (x − m) gamma / √(v + epsilon) + beta, m and v the moments over the layer's axes.

    With rms_scaling y = x gamma / √(v + epsilon), in which v is the variance all the same.

    Shapes: x and y alike; gamma and beta have the lengths of the axes.
    VJP:    of `normalize`; with rms_scaling of `scaled`, `inverse_root` and `moments`.
    Kinks:  none.
    """
    layer = call.layer
    axes = tuple(axis % x.ndim for axis in layer.axis)
    along = [n if i in axes else 1 for i, n in enumerate(x.shape)]
    wide = wide_dtype(call, x)
    gamma, beta = (
        call.arithmetic.cast(call.weights[name], wide).reshape(along)
        if name in call.weights
        else None
        for name in ("gamma", "beta")
    )

    def by_deviation(x):
        mean, variance, moments_vjp = moments(x, axes)
        r, r_vjp = inverse_root(variance + layer.epsilon)
        y, y_vjp = scaled(x, r, gamma)

        def vjp(dy):
            dx, dr, dgamma = y_vjp(dy)
            return dx + moments_vjp(0.0 * mean, r_vjp(dr)), {"gamma": dgamma}

        return y, vjp

    def forward(x):
        if layer.rms_scaling:
            y, y_vjp = by_deviation(x)
        else:
            y, y_vjp = normalize(x, axes, gamma, beta, layer.epsilon)

        def vjp(dy):
            dx, cotangents = y_vjp(dy)
            return dx, {name: d.reshape(call.weights[name].shape) for name, d in cotangents.items()}

        return y, vjp

    return at_least_single(call, forward, x)
