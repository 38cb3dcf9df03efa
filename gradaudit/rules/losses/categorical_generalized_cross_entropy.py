"""Generalized cross-entropy, between that of integer targets and the mean absolute error."""

import numpy as np
from keras import losses

from gradaudit.numerics import chained
from gradaudit.rules.registry import Case, rule


def _case(name, shape=(5, 3), **options):
    return Case(
        name,
        lambda: losses.CategoricalGeneralizedCrossEntropy(**options),
        shape,
        targets="integer",
        inputs="probability",
    )


@rule(
    losses.categorical_generalized_cross_entropy,
    cases=[_case("default"), _case("q", q=0.8), _case("3-D", (2, 3, 4), q=0.2, reduction="sum")],
    source="keras/src/losses/losses.py",
)
def categorical_generalized_cross_entropy(call, y_true, y_pred):
    """Apply ℓ = (1 − p^q) / q, p = Σₖ tₖ yₖ the prediction for the target over the last axis.

    Shapes: y_true (N, ...), y_pred (N, ..., K), ℓ (N, ...).
    VJP:    dp = −p^(q − 1) dℓ, dy_pred = t dp.
    Kinks:  none; at p = 0 the slope is infinite.
    """
    q = call.options["q"]
    classes = np.expand_dims(np.asarray(y_true).astype(np.int64), -1)
    t = call.array(classes == np.arange(y_pred.shape[-1]))
    p = (y_pred * t).sum(axis=-1)

    def vjp(d):
        dp = chained(-d / q * q, np.power(p, q - 1.0))
        return t * np.expand_dims(dp, -1)

    return (1.0 - np.power(p, q)) / q, vjp
