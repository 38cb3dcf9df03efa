"""Ftrl: follow the regularized leader."""

import numpy as np
from keras import optimizers

from gradaudit.keras_compat import Slot
from gradaudit.rules.registry import Case, rule


@rule(
    optimizers.Ftrl,
    cases=[
        Case("default", lambda: optimizers.Ftrl(0.1), (3, 4)),
        Case("power", lambda: optimizers.Ftrl(0.1, learning_rate_power=-0.7), (3, 4)),
        Case("initial", lambda: optimizers.Ftrl(0.1, initial_accumulator_value=2.0), (3, 4)),
        Case("l1", lambda: optimizers.Ftrl(0.1, l1_regularization_strength=0.5), (3, 4)),
        Case("l2", lambda: optimizers.Ftrl(0.1, l2_regularization_strength=0.5), (3, 4)),
        Case(
            "shrinkage",
            lambda: optimizers.Ftrl(0.1, l2_shrinkage_regularization_strength=0.5),
            (3, 4),
        ),
        Case("beta", lambda: optimizers.Ftrl(0.1, beta=0.5), (3, 4)),
    ],
    source="keras/src/optimizers/ftrl.py",
    slots=(("accumulator", Slot.ACCUMULATORS), ("linear", Slot.LINEARS)),
    elementwise=True,
)
def ftrl(call, weight, gradient, slots):
    """Apply one step of FTRL-Proximal with learning rate η (McMahan et al. 2013).

    Shapes: weight, gradient, accumulator n and linear z alike.
    Update: n' = n + g²; σ = (n'ᵖ − nᵖ) / η with p = −learning_rate_power;
            z' = z + g + 2 s w − σ w with the shrinkage s;
            (clip(z', −l₁, l₁) − z') / (n'ᵖ/η + 2 l₂ + β/η).
    """
    optimizer, rate = call.optimizer, call.learning_rate
    power, l1 = -optimizer.learning_rate_power, optimizer.l1_regularization_strength
    l2 = optimizer.beta / (rate * 2.0) + optimizer.l2_regularization_strength
    shrunk = gradient + weight * (2 * optimizer.l2_shrinkage_regularization_strength)
    n = slots["accumulator"] + np.square(gradient)
    n_power = np.power(n, power)
    sigma = (n_power - np.power(slots["accumulator"], power)) / rate
    z = slots["linear"] + (shrunk - sigma * weight)
    new_weight = (np.clip(z, -l1, l1) - z) / (n_power / rate + l2 * 2)
    return new_weight, {"accumulator": n, "linear": z}
