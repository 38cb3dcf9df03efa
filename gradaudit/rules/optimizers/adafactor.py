"""Adafactor."""

import numpy as np
from keras import optimizers

from gradaudit.keras_compat import Slot
from gradaudit.rules.registry import Case, rule


@rule(
    optimizers.Adafactor,
    cases=[
        Case("matrix", lambda: optimizers.Adafactor(0.1), (3, 4)),
        Case("stack", lambda: optimizers.Adafactor(0.1), (2, 3, 4)),
        Case("vector", lambda: optimizers.Adafactor(0.1), (5,)),
        Case(
            "options",
            lambda: optimizers.Adafactor(
                0.1, beta_2_decay=-0.6, epsilon_1=1e-3, epsilon_2=2.0, clip_threshold=0.5
            ),
            (3, 4),
        ),
        Case("absolute", lambda: optimizers.Adafactor(0.9, relative_step=False), (3, 4)),
    ],
    source="keras/src/optimizers/adafactor.py",
    slots=(
        ("row", Slot.ADAFACTOR_ROWS),
        ("column", Slot.ADAFACTOR_COLUMNS),
        ("velocity", Slot.ADAFACTOR_VELOCITIES),
    ),
)
def adafactor(call, weight, gradient, slots):
    """Apply step t of Adafactor with learning rate η (Shazeer and Stern 2018).

    Shapes: weight, gradient and velocity v alike, (..., I, O); row r (..., I), column c (..., O).
    Update: β = 1 − t^beta_2_decay; q = g² + ε₁; r' = β r + (1 − β) mean_O q;
            c' = β c + (1 − β) mean_I q; v' = (r' / mean r') c'ᵀ; for one axis or none
            v' = β v + (1 − β) q. u = g / sqrt(v'); w − α u / max(1, rms(u) / clip_threshold) with
            α = max(ε₂, rms(w)) min(η, 1/sqrt(t)), whether or not `relative_step` is set.
    """
    optimizer, t = call.optimizer, call.number(call.step + 1)
    alpha = np.maximum(call.number(optimizer.epsilon_2), _rms(weight))
    alpha = alpha * np.minimum(call.learning_rate, np.power(t, -0.5))
    q = np.square(gradient) + optimizer.epsilon_1
    beta = 1 - np.power(t, optimizer.beta_2_decay)
    if gradient.ndim >= 2:
        r = slots["row"] * beta + np.mean(q, axis=-1) * (1 - beta)
        c = slots["column"] * beta + np.mean(q, axis=-2) * (1 - beta)
        share = np.expand_dims(r / np.mean(r, axis=-1, keepdims=True), -1)
        v = share * np.expand_dims(c, -2)
        new_slots = {"row": r, "column": c, "velocity": v}
    else:
        v = slots["velocity"] * beta + q * (1 - beta)
        new_slots = {"velocity": v}
    u = gradient * np.power(v, -0.5)
    clipped = u / np.maximum(1.0, _rms(u) * (1 / optimizer.clip_threshold))
    return weight - clipped * alpha, new_slots


def _rms(x):
    return np.sqrt(np.mean(np.square(x)))
