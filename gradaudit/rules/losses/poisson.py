"""Poisson loss."""

import numpy as np
from keras import losses

from gradaudit.numerics import divided
from gradaudit.rules.registry import Case, rule


def _case(name, shape=(5, 3), targets="binary", **options):
    return Case(name, lambda: losses.Poisson(**options), shape, (), targets, "probability")


@rule(
    losses.poisson,
    cases=[
        _case("default"),
        _case("one output", (6, 1), reduction="sum"),
        _case("3-D", (2, 3, 4), targets="probability"),
    ],
    source="keras/src/losses/losses.py",
)
def poisson(call, y_true, y_pred):
    """Apply ℓ = Σⱼ (y − d log(y + ε)) / M over the last axis, d the targets, y the predictions.

    Shapes: y_true and y_pred (N, ..., M), ℓ (N, ...).
    VJP:    dy_pred = (1 − d / (y + ε)) dℓ / M.
    Kinks:  none; at y = −ε the loss ends.
    """
    d = call.array(y_true)
    above = y_pred + call.epsilon
    m = y_pred.shape[-1]

    def vjp(dloss):
        dmean = np.expand_dims(dloss / m, -1)
        return dmean - divided(dmean * d, above)

    return (y_pred - d * np.log(above)).mean(axis=-1), vjp
