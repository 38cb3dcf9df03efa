"""Binary cross-entropy, from logits and from probabilities."""

import numpy as np
from keras import losses
from scipy import special

from gradaudit.rules.registry import Case, rule


def _case(name, inputs, shape=(5, 3), **options):
    return Case(
        name,
        lambda: losses.BinaryCrossentropy(**options),
        shape,
        targets="binary",
        inputs=inputs,
    )


@rule(
    losses.binary_crossentropy,
    cases=[
        _case("probabilities", "probability"),
        _case("logits", "real", from_logits=True),
        _case("one output", "probability", shape=(6, 1)),
        _case("smoothed probabilities", "probability", label_smoothing=0.1),
        _case("smoothed logits", "real", from_logits=True, label_smoothing=0.1),
        _case("axis 1", "real", shape=(2, 3, 4), from_logits=True, axis=1),
    ],
    source="keras/src/backend/tensorflow/nn.py",
)
def binary_crossentropy(call, y_true, y_pred):
    """Apply ℓ = mean of −t log p − (1 − t) log(1 − p) over an axis.

    From logits z: p = σ(z), written max(z, 0) − z t + log(1 + exp(−|z|)). From probabilities: p
    clipped to [ε, 1 − ε]. With label smoothing s: t (1 − s) + s / 2 in place of t.

    Shapes: y_true and y_pred (N, ..., M), ℓ (N, ...); or the mean over another axis.
    VJP:    logits: dz = (σ(z) − t) dℓ / M.
            probabilities: dp = ((1 − t)/(1 − p) − t/p) dℓ / M, 0 where clipped.
    Kinks:  p = ε and p = 1 − ε (ε = keras.config.epsilon()).
    """
    axis = call.options.get("axis", -1)
    t = call.array(y_true)
    smoothing = call.options.get("label_smoothing", 0.0)
    if smoothing:
        t = t * (1.0 - smoothing) + 0.5 * smoothing
    m = y_pred.shape[axis]

    if call.options.get("from_logits", False):
        losses_of = np.maximum(y_pred, 0.0) - y_pred * t + np.log1p(np.exp(-np.abs(y_pred)))
        return losses_of.mean(
            axis=axis
        ), lambda d: (special.expit(y_pred) - t) * np.expand_dims(d / m, axis)

    low, high = call.epsilon, 1.0 - call.epsilon
    p = np.clip(y_pred, low, high)

    def vjp(d):
        dp = ((1 - t) / (1 - p) - t / p) * np.expand_dims(d / m, axis)
        return np.where((y_pred >= low) & (y_pred <= high), dp, 0.0)

    return -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean(axis=axis), vjp
