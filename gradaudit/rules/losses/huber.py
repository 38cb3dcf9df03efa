"""Huber's loss."""

import numpy as np
from keras import losses

from gradaudit.rules.registry import Case, rule


def _case(name, shape=(5, 3), kinks=(), targets="real", **options):
    return Case(name, lambda: losses.Huber(**options), shape, kinks, targets)


@rule(
    losses.huber,
    cases=[
        _case("default"),
        _case("small delta", delta=0.3),
        _case("large delta", delta=2.5),
        _case("3-D", (2, 3, 4), reduction="sum"),
        _case("errors of 0 and delta", kinks=(-1.0, 0.0, 1.0, 2.0), targets="binary"),
    ],
    source="keras/src/losses/losses.py",
)
def huber(call, y_true, y_pred):
    """Apply ℓ = Σⱼ h(y − d) / M over the last axis, d the targets and y the predictions.

    h(e) = e²/2 where |e| ≤ δ, and δ |e| − δ²/2 beyond.

    Shapes: y_true and y_pred (N, ..., M), ℓ (N, ...).
    VJP:    dy_pred = e dℓ / M where |e| ≤ δ, and δ sign(e) dℓ / M beyond.
    Kinks:  none: at |e| = δ both branches have the slope ±δ.
    """
    delta = call.array(call.options.get("delta", 1.0))
    error = y_pred - call.array(y_true)
    size = np.abs(error)
    inner, m = size <= delta, error.shape[-1]
    linear = delta * size - 0.5 * np.square(delta)

    def vjp(d):
        return np.where(inner, error, delta * np.sign(error)) * np.expand_dims(d / m, -1)

    return np.where(inner, 0.5 * np.square(error), linear).mean(axis=-1), vjp
