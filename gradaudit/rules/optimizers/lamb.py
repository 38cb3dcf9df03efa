"""Lamb."""

import numpy as np
from keras import optimizers

from gradaudit.rules.optimizers.adam import SLOTS, moments
from gradaudit.rules.registry import Case, rule


@rule(
    optimizers.Lamb,
    cases=[
        Case("default", lambda: optimizers.Lamb(0.01), (3, 4)),
        Case("betas", lambda: optimizers.Lamb(0.01, 0.8, 0.95, epsilon=1e-3), (3, 4)),
    ],
    source="keras/src/optimizers/lamb.py",
    slots=SLOTS,
)
def lamb(call, weight, gradient, slots):
    """Apply step t of LAMB with learning rate η (You et al. 2020).

    Shapes: weight, gradient, momentum m and velocity v alike.
    Update: m', v' as in `moments`; r = m' / (1 − β₁ᵗ) / (sqrt(v' / (1 − β₂ᵗ)) + ε);
            w − η r ‖w‖ / ‖r‖, and w − η r where one of the norms is 0.
    """
    optimizer, t = call.optimizer, call.step + 1
    beta_1_power = np.power(call.number(optimizer.beta_1), t)
    beta_2_power = np.power(call.number(optimizer.beta_2), t)
    new_slots = moments(gradient, slots, optimizer.beta_1, optimizer.beta_2)
    m_hat = new_slots["momentum"] / (1.0 - beta_1_power)
    direction = m_hat / (np.sqrt(new_slots["velocity"] / (1.0 - beta_2_power)) + optimizer.epsilon)
    weight_norm = np.sqrt(np.sum(np.power(weight, 2)))
    norm = np.sqrt(np.sum(np.power(direction, 2)))
    ratio = np.where((weight_norm > 0) & (norm > 0), weight_norm / norm, 1.0)
    return weight - direction * (ratio * call.learning_rate), new_slots
