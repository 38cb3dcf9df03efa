"""RMSNormalization."""

import math

from keras import layers

from gradaudit.rules.layers.families.precision import at_least_single, single_or_wider
from gradaudit.rules.primitives.scaling import inverse_root, scaled_by_squares
from gradaudit.rules.registry import Case, rule


@rule(
    layers.RMSNormalization,
    cases=[
        Case("last axis", lambda: layers.RMSNormalization(), (4, 5)),
        Case("3-D", lambda: layers.RMSNormalization(), (2, 3, 4)),
        Case("two axes", lambda: layers.RMSNormalization(axis=[-1, -2]), (3, 4, 2)),
        Case(
            "inner axis, scale along the last", lambda: layers.RMSNormalization(axis=1), (2, 3, 3)
        ),
        Case("large mean", lambda: layers.RMSNormalization(), (4, 5), inputs="offset"),
        Case("epsilon", lambda: layers.RMSNormalization(epsilon=0.5), (4, 5)),
    ],
    source="keras/src/layers/normalization/rms_normalization.py",
    weights=("scale",),
)
def rms_normalization(call, x):
    """Apply y = x scale / √(mean of x² + epsilon), the mean over the layer's axes.

    Shapes: x and y alike; scale has the lengths of the axes, and lies along the last axes of x,
            whichever the layer's are.
    VJP:    dz = scale dy; dr = Σ x dz, r = 1 / √s; ds = −½ r³ dr; dx = r dz + 2 x ds / n;
            dscale = Σ r x dy.
    Kinks:  none.
    """
    wide = single_or_wider(call.dtype)
    scale = call.arithmetic.cast(call.weights["scale"], wide)
    axes = tuple(axis % x.ndim for axis in call.layer.axis)
    n = math.prod(x.shape[axis] for axis in axes)

    def forward(x):
        y, y_vjp = scaled_by_squares(
            x, axes, n, lambda s: inverse_root(s + call.layer.epsilon), scale
        )

        def vjp(dy):
            dx, dscale = y_vjp(dy)
            return dx, {"scale": call.arithmetic.cast(dscale, call.dtype)}

        return y, vjp

    return at_least_single(call, forward, x)
