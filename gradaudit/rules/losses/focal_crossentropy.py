"""Focal cross-entropies: those of predictions that are right already count less."""

import functools

import numpy as np
from keras import activations, losses
from scipy import special

from gradaudit.numerics import chained, divided
from gradaudit.rules.context import apply_activation
from gradaudit.rules.losses.binary_crossentropy import each_binary_crossentropy, smoothed_binary
from gradaudit.rules.losses.categorical_crossentropy import normalized, smoothed_one_hot
from gradaudit.rules.losses.reduction import along
from gradaudit.rules.registry import Case, rule

_SOURCE = "keras/src/losses/losses.py"


def _cases(loss, targets, *more):
    chosen = [
        ("probabilities", "probability", (5, 3), {}),
        ("logits", "real", (5, 3), {"from_logits": True}),
        ("smoothed probabilities", "probability", (5, 3), {"label_smoothing": 0.1}),
        ("smoothed logits", "real", (5, 3), {"from_logits": True, "label_smoothing": 0.1}),
        ("gamma", "probability", (5, 3), {"gamma": 1.3, "reduction": "sum"}),
        ("axis 1", "real", (2, 3, 4), {"from_logits": True, "axis": 1}),
        *more,
    ]
    return [
        Case(name, functools.partial(loss, **options), shape, tuple(kinks), targets, inputs)
        for name, inputs, shape, options, *kinks in chosen
    ]


@rule(
    losses.binary_focal_crossentropy,
    cases=_cases(
        losses.BinaryFocalCrossentropy,
        "binary",
        ("one output", "probability", (6, 1), {}, 1e-7, 1 - 1e-7),
        ("balanced", "probability", (5, 3), {"apply_class_balancing": True}),
        ("alpha", "real", (5, 3), {"apply_class_balancing": True, "alpha": 0.7, "gamma": 3}),
    ),
    source=_SOURCE,
    uses_logits=lambda options: None if options.get("from_logits") else "reads",
)
def binary_focal_crossentropy(call, y_true, y_pred):
    """Apply ℓ = mean of w (1 − r)^γ b over an axis, b each one's cross-entropy.

    r = t p + (1 − t) (1 − p) with p not clipped, p = σ(z) from logits z; w = 1, or with class
    balancing t α + (1 − t) (1 − α). Where Keras has the logits of p, b is computed from those, and
    r from p.

    Shapes: y_true and y_pred (N, ..., M), ℓ (N, ...); or the mean over another axis.
    VJP:    db = w (1 − r)^γ dℓ / M; dr = −w γ (1 − r)^(γ − 1) b dℓ / M; dp = (2 t − 1) dr plus the
            part of b's cross-entropy; dz = p (1 − p) dp.
    Kinks:  those of binary_crossentropy.
    """
    axis, gamma = call.options.get("axis", -1), call.options.get("gamma", 2.0)
    from_logits = call.options.get("from_logits", False)
    t = smoothed_binary(call, y_true)
    logits = y_pred if from_logits else call.logits
    p = special.expit(y_pred) if from_logits else y_pred
    b, b_vjp = each_binary_crossentropy(
        call, t, p if logits is None else logits, logits is not None
    )
    wrong = 1.0 - (t * p + (1.0 - t) * (1.0 - p))
    factor = np.power(wrong, gamma)
    weight = 1.0
    if call.options.get("apply_class_balancing", False):
        alpha = call.options.get("alpha", 0.25)
        weight = t * alpha + (1.0 - t) * (1.0 - alpha)
    each = weight * (factor * b)
    loss = each.mean(axis=axis)
    m = each.size // max(loss.size, 1)

    def vjp(d):
        deach = weight * along(d / m, axis)
        dr = chained(-(deach * b) * gamma, np.power(wrong, gamma - 1))
        dp, db = t * dr - (1.0 - t) * dr, b_vjp(deach * factor)
        if from_logits:
            return dp * p * (1.0 - p) + db
        return dp + db if logits is None else (dp, db)

    return loss, vjp


@rule(
    losses.categorical_focal_crossentropy,
    cases=_cases(
        losses.CategoricalFocalCrossentropy,
        "one_hot",
        ("alpha", "probability", (5, 3), {"alpha": 0.6, "gamma": 3}),
        ("at the clip", "probability", (5, 2), {}, (1e-7, 1 - 1e-7)),
        ("alpha of each class", "real", (5, 3), {"alpha": [0.2, 0.3, 0.5], "from_logits": True}),
    ),
    source=_SOURCE,
)
def categorical_focal_crossentropy(call, y_true, y_pred):
    """Apply ℓ = −Σₖ αₖ (1 − pₖ)^γ tₖ log pₖ over the class axis.

    p = q / Σ q, clipped to [ε, 1 − ε]; q is softmax(z) from logits z. The logits of a softmax
    before the loss are not looked for.

    Shapes: y_true and y_pred (N, ..., K), ℓ (N, ...); or the class axis elsewhere.
    VJP:    dp = α t (γ (1 − p)^(γ − 1) log p − (1 − p)^γ / p) dℓ, 0 where clipped; dq and dz as in
            categorical_crossentropy and softmax.
    Kinks:  p = ε and p = 1 − ε (ε = keras.config.epsilon()).
    """
    axis, gamma = call.options.get("axis", -1), call.options.get("gamma", 2.0)
    alpha = call.options.get("alpha", 0.25)
    if not isinstance(alpha, (int, float)):
        alpha = call.array(np.float32(alpha))  # as TensorFlow holds a list in any precision
    t = smoothed_one_hot(call, y_true)
    q, q_vjp = y_pred, lambda dq: dq
    if call.options.get("from_logits", False):
        q, q_vjp = apply_activation(functools.partial(activations.softmax, axis=axis), y_pred)
    p, p_vjp = normalized(call, q, axis)
    cross = -t * np.log(p)
    factor = np.power(1.0 - p, gamma) * alpha

    def vjp(d):
        d = np.expand_dims(d, axis)
        dfactor = chained(d, cross) * alpha
        dp = -divided(chained(d, factor) * t, p) - chained(
            dfactor * gamma, np.power(1.0 - p, gamma - 1)
        )
        return q_vjp(p_vjp(dp))

    return (factor * cross).sum(axis=axis), vjp
