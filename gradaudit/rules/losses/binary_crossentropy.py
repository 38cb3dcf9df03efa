"""Binary cross-entropy, from logits and from probabilities."""

import numpy as np
from keras import losses
from scipy import special

from gradaudit.rules.losses.reduction import along
from gradaudit.rules.primitives.clip import clipped
from gradaudit.rules.registry import Case, rule


def _case(name, inputs, shape=(5, 3), kinks=(), **options):
    return Case(name, lambda: losses.BinaryCrossentropy(**options), shape, kinks, "binary", inputs)


def smoothed_binary(call, y_true):
    """Return t (1 − s) + s / 2 for targets t and label smoothing s."""
    t, smoothing = call.array(y_true), call.options.get("label_smoothing", 0.0)
    return t * (1.0 - smoothing) + 0.5 * smoothing if smoothing else t


def each_binary_crossentropy(call, t, y_pred, from_logits):
    """Return −t log p − (1 − t) log(1 − p) of each prediction and its VJP, without a mean.

    From logits z: p = σ(z), written max(z, 0) − z t + log(1 + exp(−|z|)). From probabilities: p
    clipped to [ε, 1 − ε].
    """
    if from_logits:
        z = y_pred
        each = np.maximum(z, 0.0) - z * t + np.log1p(np.exp(-np.abs(z)))
        return each, lambda d: (special.expit(z) - t) * d

    p, p_vjp = clipped(y_pred, call.epsilon, 1.0 - call.epsilon)

    def vjp(d):
        return p_vjp(((1 - t) / (1 - p) - t / p) * d)

    return -(t * np.log(p) + (1 - t) * np.log(1 - p)), vjp


@rule(
    losses.binary_crossentropy,
    cases=[
        _case("probabilities", "probability", kinks=(1e-7, 1 - 1e-7)),
        _case("logits", "real", from_logits=True),
        _case("one output", "probability", shape=(6, 1)),
        _case("smoothed probabilities", "probability", label_smoothing=0.1),
        _case("smoothed logits", "real", from_logits=True, label_smoothing=0.1),
        _case("axis 1", "real", shape=(2, 3, 4), from_logits=True, axis=1),
        _case("two axes", "real", shape=(2, 3, 4), from_logits=True, axis=(1, 2)),
    ],
    source="keras/src/backend/tensorflow/nn.py",
    uses_logits=lambda options: "takes",
)
def binary_crossentropy(call, y_true, y_pred):
    """Apply ℓ = mean of −t log p − (1 − t) log(1 − p) over an axis, p = σ(z) from logits z.

    Shapes: y_true and y_pred (N, ..., M), ℓ (N, ...); or the mean over another axis.
    VJP:    logits: dz = (σ(z) − t) dℓ / M.
            probabilities: dp = ((1 − t)/(1 − p) − t/p) dℓ / M, 0 where clipped.
    Kinks:  p = ε and p = 1 − ε (ε = keras.config.epsilon()).
    """
    axis = call.options.get("axis", -1)
    t = smoothed_binary(call, y_true)
    each, vjp = each_binary_crossentropy(call, t, y_pred, call.options.get("from_logits", False))
    loss = each.mean(axis=axis)
    m = each.size // max(loss.size, 1)
    return loss, lambda d: vjp(along(d / m, axis))
