"""Categorical cross-entropy, from logits and from probabilities."""

import numpy as np
from keras import losses

from gradaudit.numerics import chained, divided
from gradaudit.rules.primitives.clip import clipped
from gradaudit.rules.primitives.log_softmax import log_softmax, not_one
from gradaudit.rules.registry import Case, rule


def _case(name, inputs, shape=(5, 3), kinks=(), **options):
    build = lambda: losses.CategoricalCrossentropy(**options)  # noqa: E731
    return Case(name, build, shape, kinks, "one_hot", inputs)


def smoothed_one_hot(call, y_true):
    """Return t (1 − s) + s / K for targets t over K classes and label smoothing s."""
    t, smoothing = call.array(y_true), call.options.get("label_smoothing", 0.0)
    return t * (1.0 - smoothing) + smoothing / t.shape[-1] if smoothing else t


def normalized(call, q, axis):
    """Return p = q / Σ q, clipped to [ε, 1 − ε], and its VJP.

    VJP: dq = (dp − Σ p dp) / Σ q, with dp 0 where p is clipped.
    """
    total = q.sum(axis=axis, keepdims=True)
    p = q / total
    y, clip_vjp = clipped(p, call.epsilon, 1.0 - call.epsilon)

    def vjp(dy):
        dp = clip_vjp(dy)
        return divided(dp - chained(dp, p).sum(axis=axis, keepdims=True), total)

    return y, vjp


@rule(
    losses.categorical_crossentropy,
    cases=[
        _case("probabilities", "probability"),
        _case("at the clip", "probability", (5, 2), ((1e-7, 1 - 1e-7),)),
        _case("logits", "real", from_logits=True),
        _case("smoothed probabilities", "probability", label_smoothing=0.1),
        _case("smoothed logits", "real", from_logits=True, label_smoothing=0.1),
        _case("summed", "real", from_logits=True, reduction="sum"),
        _case("axis 1", "real", shape=(2, 3, 4), from_logits=True, axis=1),
    ],
    source="keras/src/backend/tensorflow/nn.py",
    uses_logits=lambda options: "takes",
)
def categorical_crossentropy(call, y_true, y_pred):
    """Apply ℓ = −Σₖ tₖ log pₖ over the class axis.

    From logits z: p = softmax(z). From probabilities q: p = q / Σ q, clipped to [ε, 1 − ε].

    Shapes: y_true and y_pred (N, ..., K), ℓ (N, ...); or the class axis elsewhere.
    VJP:    logits: dz = (p Σ t − t) dℓ, which is (p − t) dℓ only where t sums to 1.
            probabilities: dp = −t/p dℓ, 0 where clipped; dq = (dp − Σ p dp) / Σ q.
    Kinks:  p = ε and p = 1 − ε (ε = keras.config.epsilon()).
    """
    axis = call.options.get("axis", -1)
    t = smoothed_one_hot(call, y_true)
    if not call.options.get("from_logits", False):
        p, normalized_vjp = normalized(call, y_pred, axis)

        def vjp(d):
            return normalized_vjp(chained(np.expand_dims(d, axis), -t / p))

        return -(t * np.log(p)).sum(axis=axis), vjp

    log_p, p = log_softmax(y_pred, axis)
    if row := not_one(call.numbers(t), axis, call.dtype):
        call.misleads("SoftmaxCrossEntropyWithLogits", row)

    def logits_vjp(d):
        return (p * t.sum(axis=axis, keepdims=True) - t) * np.expand_dims(d, axis)

    return -(t * log_p).sum(axis=axis), logits_vjp
