"""Kullback-Leibler divergence."""

import numpy as np
from keras import losses

from gradaudit.rules.primitives.clip import clipped
from gradaudit.rules.registry import Case, rule


def _case(name, targets, inputs="probability", shape=(5, 3), kinks=(), **options):
    return Case(name, lambda: losses.KLDivergence(**options), shape, kinks, targets, inputs)


@rule(
    losses.kl_divergence,
    cases=[
        _case("default", "probability"),
        _case("one-hot targets", "one_hot", kinks=(1e-7, 1.0)),
        _case("numbers that are clipped", "probability", "real"),
        _case("3-D", "probability", shape=(2, 3, 4), reduction="sum"),
    ],
    source="keras/src/losses/losses.py",
)
def kl_divergence(call, y_true, y_pred):
    """Apply ℓ = Σⱼ t log(t / p) over the last axis, t and p clipped to [ε, 1].

    Shapes: y_true and y_pred (N, ..., M), ℓ (N, ...).
    VJP:    dp = −t/p dℓ, 0 where clipped.
    Kinks:  p = ε and p = 1, where it is not yet 0.
    """
    t = np.clip(call.array(y_true), call.epsilon, 1.0)
    p, p_vjp = clipped(y_pred, call.epsilon, 1.0)
    ratio = t / p

    def vjp(d):
        # As TensorFlow has it: 1/ratio overflows in float16 where t is ε.
        dratio = np.expand_dims(d, -1) * t * (1.0 / ratio)
        return p_vjp(dratio * (-ratio / p))

    return (t * np.log(ratio)).sum(axis=-1), vjp
