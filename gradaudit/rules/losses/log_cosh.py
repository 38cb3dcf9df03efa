"""Logarithm of the hyperbolic cosine of the error."""

import numpy as np
from keras import activations, losses
from scipy import special

from gradaudit.rules.context import apply_activation
from gradaudit.rules.registry import Case, rule

_LOG_2 = float(np.float32(np.log(2.0)))  # as Keras computes it, in whatever precision


@rule(
    losses.log_cosh,
    cases=[
        Case("default", lambda: losses.LogCosh(), (5, 3)),
        Case("3-D", lambda: losses.LogCosh(), (2, 3, 4)),
        Case("sum", lambda: losses.LogCosh(reduction="sum"), (5, 3), targets="binary"),
    ],
    source="keras/src/losses/losses.py",
)
def log_cosh(call, y_true, y_pred):
    """Apply ℓ = Σⱼ log(cosh e) / M over the last axis, with e = y − d.

    log(cosh e) = log((exp(e) + exp(−e)) / 2) = e + softplus(−2 e) − log 2.

    Shapes: y_true and y_pred (N, ..., M), ℓ (N, ...).
    VJP:    dy_pred = (1 − 2 σ(−2 e)) dℓ / M, which is tanh(e) dℓ / M.
    Kinks:  none.
    """
    error = y_pred - call.array(y_true)
    soft, _ = apply_activation(activations.softplus, -2.0 * error)
    m = error.shape[-1]

    # 1 − 2 σ and not tanh: the cancellation near 0 is TensorFlow's.
    def vjp(d):
        return (1.0 - 2.0 * special.expit(-2.0 * error)) * np.expand_dims(d / m, -1)

    return (error + soft - _LOG_2).mean(axis=-1), vjp
