"""Cosine similarity."""

import numpy as np
from keras import losses

from gradaudit.rules.losses.reduction import along
from gradaudit.rules.registry import Case, rule


def _case(name, shape=(5, 3), kinks=(), **options):
    return Case(name, lambda: losses.CosineSimilarity(**options), shape, kinks)


@rule(
    losses.cosine_similarity,
    cases=[
        _case("default"),
        _case("null vectors", kinks=(0.0,)),
        _case("axis 1", (2, 3, 4), axis=1, reduction="sum"),
        _case("two axes", (2, 3, 4), axis=(1, 2)),
    ],
    source="keras/src/losses/losses.py",
)
def cosine_similarity(call, y_true, y_pred):
    """Apply ℓ = −Σ d̂ ŷ over an axis, x̂ = x min(1/‖x‖, 1/ε) along it.

    With r = (Σ y²)^(−1/2): ∂r/∂y = −r³ y.

    Shapes: y_true and y_pred (N, ..., M), ℓ (N, ...); or another axis, or several.
    VJP:    dŷ = −d̂ dℓ; dy_pred = r dŷ − r³ y Σ y dŷ, and dŷ / ε where ‖y‖ < ε.
    Kinks:  ‖y‖ = ε.
    """
    axis = call.options.get("axis", -1)

    def inverse_norm(x):
        return np.power(np.square(x).sum(axis=axis, keepdims=True), -0.5)

    largest = 1.0 / call.epsilon
    d = call.array(y_true)
    d_hat = d * np.minimum(inverse_norm(d), largest)
    r = inverse_norm(y_pred)
    scale = np.minimum(r, largest)

    def vjp(dloss):
        dy_hat = -d_hat * along(dloss, axis)
        dr = (dy_hat * y_pred).sum(axis=axis, keepdims=True)
        dsquares = np.where(r <= largest, -0.5 * dr * scale * scale * scale, 0.0)
        return dy_hat * scale + 2.0 * y_pred * dsquares

    return -(d_hat * (y_pred * scale)).sum(axis=axis), vjp
