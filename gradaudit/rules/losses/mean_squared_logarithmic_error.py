"""Mean squared logarithmic error."""

import numpy as np
from keras import losses

from gradaudit.numerics import chained_through
from gradaudit.rules.layers.families.precision import single_or_wider
from gradaudit.rules.registry import Case, rule

_EPSILON = float(np.float32(1e-7))


@rule(
    losses.mean_squared_logarithmic_error,
    cases=[
        Case("default", lambda: losses.MeanSquaredLogarithmicError(), (5, 3), inputs="probability"),
        Case("negative numbers", lambda: losses.MeanSquaredLogarithmicError(), (5, 3)),
        Case("3-D", lambda: losses.MeanSquaredLogarithmicError(), (2, 3, 4), kinks=(_EPSILON,)),
    ],
    source="keras/src/losses/losses.py",
)
def mean_squared_logarithmic_error(call, y_true, y_pred):
    """Apply ℓ = Σⱼ (a − b)² / M over the last axis, a = log(max(y, ε) + 1), b that of the targets.

    Keras makes ε a float32 array: a loss in a half precision is computed in float32.

    Shapes: y_true and y_pred (N, ..., M), ℓ (N, ...).
    VJP:    dy_pred = 2 (a − b) dℓ / (M (max(y, ε) + 1)), 0 where y < ε.
    Kinks:  y = ε, where it is that of y > ε.
    """
    dtype = single_or_wider(call.dtype)
    cast = call.arithmetic.cast
    epsilon = float(np.float32(call.epsilon))
    y = cast(y_pred, dtype)
    above = np.maximum(y, epsilon) + 1.0
    error = np.log(above) - np.log(np.maximum(cast(call.array(y_true), dtype), epsilon) + 1.0)
    m = error.shape[-1]

    def vjp(d):
        dy = 2.0 * error * np.expand_dims(cast(d, dtype) / m, -1) / above
        return cast(chained_through(y, dy, np.where(y >= epsilon, dy, 0.0)), call.dtype)

    return cast(np.square(error).mean(axis=-1), call.dtype), vjp
