"""Mean squared error."""

import numpy as np
from keras import losses

from gradaudit.rules.registry import Case, rule


@rule(
    losses.mean_squared_error,
    cases=[
        Case("default", lambda: losses.MeanSquaredError(), (5, 3)),
        Case("sum", lambda: losses.MeanSquaredError(reduction="sum"), (5, 3)),
        Case("3-D", lambda: losses.MeanSquaredError(), (2, 3, 4)),
    ],
    source="keras/src/losses/losses.py",
)
def mean_squared_error(call, y_true, y_pred):
    """Apply ℓ = Σⱼ (d − y)² / M over the last axis, d the targets and y the predictions.

    Shapes: y_true and y_pred (N, ..., M), ℓ (N, ...).
    VJP:    dy_pred = −2 (d − y) dℓ / M.
    Kinks:  none.
    """
    error = call.array(y_true) - y_pred
    m = error.shape[-1]
    return np.square(error).mean(axis=-1), lambda d: -2.0 * error * np.expand_dims(d / m, -1)
