"""Mean absolute error, and the same in percent of the target."""

import numpy as np
from keras import losses

from gradaudit.rules.registry import Case, rule

_SOURCE = "keras/src/losses/losses.py"


def _cases(loss):
    return [
        Case("default", loss, (5, 3)),
        Case("3-D", loss, (2, 3, 4)),
        Case("sum", lambda: loss(reduction="sum"), (5, 3)),
        Case("equal to targets", loss, (5, 3), kinks=(0.0, 1.0), targets="binary"),
    ]


@rule(losses.mean_absolute_error, cases=_cases(losses.MeanAbsoluteError), source=_SOURCE)
def mean_absolute_error(call, y_true, y_pred):
    """Apply ℓ = Σⱼ |d − y| / M over the last axis, d the targets and y the predictions.

    Shapes: y_true and y_pred (N, ..., M), ℓ (N, ...).
    VJP:    dy_pred = −sign(d − y) dℓ / M.
    Kinks:  y = d, where it is 0.
    """
    error = call.array(y_true) - y_pred
    m = error.shape[-1]
    return np.abs(error).mean(axis=-1), lambda d: -np.sign(error) * np.expand_dims(d / m, -1)


@rule(
    losses.mean_absolute_percentage_error,
    cases=_cases(losses.MeanAbsolutePercentageError),
    source=_SOURCE,
)
def mean_absolute_percentage_error(call, y_true, y_pred):
    """Apply ℓ = 100 Σⱼ |(d − y) / s| / M over the last axis, with s = max(|d|, ε).

    Shapes: y_true and y_pred (N, ..., M), ℓ (N, ...).
    VJP:    dy_pred = −100 sign(d − y) dℓ / (M s).
    Kinks:  y = d, where it is 0.
    """
    d = call.array(y_true)
    size = np.maximum(np.abs(d), call.epsilon)
    error = (d - y_pred) / size
    m = error.shape[-1]

    def vjp(dloss):
        return -np.sign(error) * np.expand_dims(100.0 * dloss / m, -1) / size

    return 100.0 * np.abs(error).mean(axis=-1), vjp
