"""Categorical cross-entropy, from logits and from probabilities."""

import numpy as np
from keras import losses

from gradaudit.rules.registry import Case, rule


def _case(name, inputs, shape=(5, 3), **options):
    return Case(
        name,
        lambda: losses.CategoricalCrossentropy(**options),
        shape,
        targets="one_hot",
        inputs=inputs,
    )


@rule(
    losses.categorical_crossentropy,
    cases=[
        _case("probabilities", "probability"),
        _case("logits", "real", from_logits=True),
        _case("smoothed probabilities", "probability", label_smoothing=0.1),
        _case("smoothed logits", "real", from_logits=True, label_smoothing=0.1),
        _case("summed", "real", from_logits=True, reduction="sum"),
        _case("axis 1", "real", shape=(2, 3, 4), from_logits=True, axis=1),
    ],
    source="keras/src/backend/tensorflow/nn.py",
)
def categorical_crossentropy(call, y_true, y_pred):
    """Apply ℓ = −Σₖ tₖ log pₖ over the class axis.

    From logits z: p = softmax(z). From probabilities q: p = q / Σ q, clipped to [ε, 1 − ε]. With
    label smoothing s over K classes: t (1 − s) + s / K in place of t.

    Shapes: y_true and y_pred (N, ..., K), ℓ (N, ...); or the class axis elsewhere.
    VJP:    logits: dz = (p Σ t − t) dℓ, which is (p − t) dℓ only where t sums to 1.
            probabilities: dp = −t/p dℓ, 0 where clipped; dq = (dp − Σ p dp) / Σ q.
    Kinks:  p = ε and p = 1 − ε (ε = keras.config.epsilon()).
    """
    axis = call.options.get("axis", -1)
    t = call.array(y_true)
    smoothing = call.options.get("label_smoothing", 0.0)
    if smoothing:
        t = t * (1.0 - smoothing) + smoothing / t.shape[-1]

    if call.options.get("from_logits", False):
        shifted = y_pred - y_pred.max(axis=axis, keepdims=True)
        e = np.exp(shifted)
        total = e.sum(axis=axis, keepdims=True)

        def logits_vjp(d):
            residual = e / total * t.sum(axis=axis, keepdims=True) - t
            return residual * np.expand_dims(d, axis)

        return (t * (np.log(total) - shifted)).sum(axis=axis), logits_vjp

    total = y_pred.sum(axis=axis, keepdims=True)
    p = y_pred / total
    clipped = np.clip(p, call.epsilon, 1.0 - call.epsilon)

    def vjp(d):
        dp = -t / clipped * np.expand_dims(d, axis)
        dp = np.where((p >= call.epsilon) & (p <= 1.0 - call.epsilon), dp, 0.0)
        return (dp - (p * dp).sum(axis=axis, keepdims=True)) / total

    return -(t * np.log(clipped)).sum(axis=axis), vjp
