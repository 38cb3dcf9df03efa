"""Adamax."""

import numpy as np
from keras import optimizers

from gradaudit.keras_compat import Slot
from gradaudit.rules.registry import Case, rule


@rule(
    optimizers.Adamax,
    cases=[
        Case("default", lambda: optimizers.Adamax(0.01), (3, 4)),
        Case("betas", lambda: optimizers.Adamax(0.01, 0.8, 0.95, epsilon=1e-3), (3, 4)),
    ],
    source="keras/src/optimizers/adamax.py",
    slots=(("momentum", Slot.ADAMAX_MOMENTUMS), ("norm", Slot.ADAMAX_NORMS)),
    elementwise=True,
)
def adamax(call, weight, gradient, slots):
    """Apply step t of Adamax with learning rate η (Kingma and Ba 2015, section 7.1).

    Shapes: weight, gradient, momentum m and norm u alike.
    Update: m' = m + (g − m)(1 − β₁); u' = max(β₂ u, |g|); w − η m' / ((1 − β₁ᵗ)(u' + ε)).
    """
    optimizer = call.optimizer
    beta_1_power = np.power(call.number(optimizer.beta_1), call.step + 1)
    m = slots["momentum"] + (gradient - slots["momentum"]) * (1 - optimizer.beta_1)
    u = np.maximum(slots["norm"] * optimizer.beta_2, np.abs(gradient))
    step = m * call.learning_rate / ((u + optimizer.epsilon) * (1 - beta_1_power))
    return weight - step, {"momentum": m, "norm": u}
