"""Adam."""

import numpy as np
from keras import optimizers

from gradaudit.rules.registry import Case, rule


@rule(
    optimizers.Adam,
    cases=[
        Case("default", lambda: optimizers.Adam(0.01), (3, 4)),
        Case("betas", lambda: optimizers.Adam(0.01, beta_1=0.8, beta_2=0.95, epsilon=1e-3), (3, 4)),
        Case("amsgrad", lambda: optimizers.Adam(0.01, amsgrad=True), (3, 4)),
    ],
    source="keras/src/optimizers/adam.py",
    slots=(
        ("momentum", "_momentums"),
        ("velocity", "_velocities"),
        ("velocity_hat", "_velocity_hats"),
    ),
)
def adam(call, weight, gradient, slots):
    """Apply step t of Adam with learning rate η (Kingma and Ba 2015, the form before section 2.1).

    Shapes: weight, gradient, momentum m, velocity v and velocity_hat alike.
    Update: m' = m + (g − m)(1 − β₁); v' = v + (g² − v)(1 − β₂); with amsgrad v̂' = max(v̂, v') takes
            the place of v'; w − α m' / (sqrt(v') + ε) with α = η sqrt(1 − β₂ᵗ) / (1 − β₁ᵗ).
    """
    optimizer, t = call.optimizer, call.step + 1
    beta_1_power = np.power(call.number(optimizer.beta_1), t)
    beta_2_power = np.power(call.number(optimizer.beta_2), t)
    alpha = call.learning_rate * np.sqrt(1 - beta_2_power) / (1 - beta_1_power)
    m = slots["momentum"] + (gradient - slots["momentum"]) * (1 - optimizer.beta_1)
    v = slots["velocity"] + (np.square(gradient) - slots["velocity"]) * (1 - optimizer.beta_2)
    new_slots = {"momentum": m, "velocity": v}
    if optimizer.amsgrad:
        v = np.maximum(slots["velocity_hat"], v)
        new_slots["velocity_hat"] = v
    return weight - m * alpha / (np.sqrt(v) + optimizer.epsilon), new_slots
