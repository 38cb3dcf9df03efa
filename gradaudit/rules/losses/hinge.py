"""Hinge losses: of labels −1 and 1, its square, and of one-hot labels."""

import numpy as np
from keras import losses

from gradaudit.numerics import chained_through
from gradaudit.rules.primitives.extremes import shared_by_largest
from gradaudit.rules.registry import Case, rule

_SOURCE = "keras/src/losses/losses.py"


def _cases(loss):
    return [
        Case("labels 0 and 1", loss, (5, 3), kinks=(-1.0, 1.0), targets="binary"),
        Case("one output", loss, (6, 1), targets="binary"),
        Case("other labels", loss, (5, 3), targets="real"),
        Case("3-D", lambda: loss(reduction="sum"), (2, 3, 4), targets="binary"),
    ]


def _labels(call, y_true):
    """Return labels 0 and 1 as −1 and 1, and others as they are, as Keras does with a batch."""
    t = call.array(y_true)
    return 2.0 * t - 1.0 if np.isin(call.numbers(t), (0.0, 1.0)).all() else t


@rule(losses.hinge, cases=_cases(losses.Hinge), source=_SOURCE)
def hinge(call, y_true, y_pred):
    """Apply ℓ = Σⱼ max(1 − t y, 0) / M over the last axis.

    Shapes: y_true and y_pred (N, ..., M), ℓ (N, ...).
    VJP:    dy_pred = −t dℓ / M where 1 − t y ≥ 0, else 0.
    Kinks:  t y = 1, where it is −t dℓ / M.
    """
    t = _labels(call, y_true)
    margin = 1.0 - t * y_pred
    m = margin.shape[-1]

    def vjp(d):
        dmean = np.expand_dims(d / m, -1)
        return chained_through(margin, dmean, np.where(margin >= 0.0, -t * dmean, 0.0))

    return np.maximum(margin, 0.0).mean(axis=-1), vjp


@rule(losses.squared_hinge, cases=_cases(losses.SquaredHinge), source=_SOURCE)
def squared_hinge(call, y_true, y_pred):
    """Apply ℓ = Σⱼ max(1 − t y, 0)² / M over the last axis.

    Shapes: y_true and y_pred (N, ..., M), ℓ (N, ...).
    VJP:    dy_pred = −2 t max(1 − t y, 0) dℓ / M.
    Kinks:  none: at t y = 1 it is 0 from both sides.
    """
    t = _labels(call, y_true)
    margin = np.maximum(1.0 - t * y_pred, 0.0)
    m = margin.shape[-1]
    return np.square(margin).mean(axis=-1), lambda d: -2.0 * t * margin * np.expand_dims(d / m, -1)


@rule(
    losses.categorical_hinge,
    cases=[
        Case("default", lambda: losses.CategoricalHinge(), (5, 3), (-1.0, 0.0, 1.0), "one_hot"),
        Case("labels 0 and 1", lambda: losses.CategoricalHinge(), (4, 3), (0.0,), "binary"),
        Case("other labels", lambda: losses.CategoricalHinge(), (5, 3)),
        Case("3-D", lambda: losses.CategoricalHinge(), (2, 3, 4), targets="one_hot"),
    ],
    source=_SOURCE,
)
def categorical_hinge(call, y_true, y_pred):
    """Apply ℓ = max(1 + maxⱼ (1 − t) y − Σⱼ t y, 0) over the last axis.

    Shapes: y_true and y_pred (N, ..., M), ℓ (N, ...).
    VJP:    dy_pred = (s (1 − t) − t) dℓ where ℓ ≥ 0 before it is cut, else 0; s is 1 at the largest
            (1 − t) y, and k equal ones have 1/k each.
    Kinks:  equal largest (1 − t) y; the argument of the outer max at 0, where it counts.
    """
    t = call.array(y_true)
    others = (1.0 - t) * y_pred
    shared = shared_by_largest(others, -1)
    margin = others.max(axis=-1) - (t * y_pred).sum(axis=-1) + 1.0

    def vjp(d):
        dmargin = chained_through(margin, d, np.where(margin >= 0.0, d, 0.0))[..., None]
        return shared(dmargin) * (1.0 - t) - t * dmargin

    return np.maximum(margin, 0.0), vjp
