"""UnitNormalization."""

import numpy as np
from keras import layers

from gradaudit.rules.primitives.scaling import inverse_root, scaled_by_squares
from gradaudit.rules.registry import Case, rule


@rule(
    layers.UnitNormalization,
    cases=[
        Case("last axis", lambda: layers.UnitNormalization(), (4, 5), kinks=(0.0, 1e-13)),
        Case("large mean", lambda: layers.UnitNormalization(), (4, 5), inputs="offset"),
        Case("inner axis", lambda: layers.UnitNormalization(axis=1), (3, 4, 2)),
        Case("two axes", lambda: layers.UnitNormalization(axis=[1, -1]), (3, 4, 2, 3)),
    ],
    source="keras/src/layers/normalization/unit_normalization.py",
)
def unit_normalization(call, x):
    """Apply y = r x, r = 1 / √s, s = max(Σ x², 10⁻²⁴): x / |x|, and 10¹² x where |x| is smaller.

    Shapes: x and y alike; Σ over the layer's axes.
    VJP:    dr = Σ x dy; ds = −½ r³ dr; dx = r dy + 2 x ds where Σ x² is larger, else r dy.
    Kinks:  |x| = 10⁻¹².
    """
    smallest = call.array(1e-24)

    def inverse(s):
        r, r_vjp = inverse_root(np.maximum(s, smallest))
        return r, lambda dr: np.where(s > smallest, r_vjp(dr), 0.0)

    y, vjp = scaled_by_squares(x, tuple(np.atleast_1d(call.layer.axis)), 1, inverse)
    return y, lambda dy: (vjp(dy)[0], {})
