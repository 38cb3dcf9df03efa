"""Half squared error: the loss that textbooks derive backprop with, and Keras does not have."""

import keras
import numpy as np
from keras import losses, ops

from gradaudit.rules.registry import Case, rule


@keras.saving.register_keras_serializable("gradaudit")
class HalfSquaredError(losses.Loss):
    """E = Σ (d − y)² / 2 over all outputs and samples, d the targets and y the predictions."""

    def __init__(
        self, reduction: str = "sum", name: str = "half_squared_error", dtype: str | None = None
    ) -> None:
        super().__init__(reduction=reduction, name=name, dtype=dtype)

    def call(self, y_true, y_pred):
        d = ops.reshape(y_true, ops.shape(y_pred))
        return ops.sum(ops.square(d - y_pred), axis=-1) / 2


@rule(
    HalfSquaredError,
    cases=[
        Case("default", lambda: HalfSquaredError(), (5, 3)),
        Case("one output", lambda: HalfSquaredError(), (4, 1)),
    ],
    source="gradaudit/rules/losses/half_squared_error.py",
)
def half_squared_error(call, y_true, y_pred):
    """Apply ℓ = Σⱼ (d − y)² / 2 over the last axis.

    Shapes: y_true and y_pred (N, ..., M), ℓ (N, ...).
    VJP:    dy_pred = −(d − y) dℓ.
    Kinks:  none.
    """
    error = call.array(y_true).reshape(y_pred.shape) - y_pred
    return np.square(error).sum(axis=-1) / 2, lambda d: -error * np.expand_dims(d, -1)
