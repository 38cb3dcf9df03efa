"""Adam, and AdamW, which is Adam with a weight decay."""

import numpy as np
from keras import optimizers

from gradaudit.keras_compat import Slot
from gradaudit.rules.registry import Case, rule

SLOTS = (("momentum", Slot.MOMENTUMS), ("velocity", Slot.VELOCITIES))


def moments(gradient, slots, beta_1, beta_2):
    """Return the new moments m' = m + (g − m)(1 − β₁) and v' = v + (g² − v)(1 − β₂)."""
    m = slots["momentum"] + (gradient - slots["momentum"]) * (1 - beta_1)
    v = slots["velocity"] + (np.square(gradient) - slots["velocity"]) * (1 - beta_2)
    return {"momentum": m, "velocity": v}


def adam_step(call, weight, gradient, slots, learning_rate, beta_1, beta_2):
    """Return the new weight and slots; see `adam`."""
    t = call.step + 1
    beta_1_power = np.power(call.number(beta_1), t)
    beta_2_power = np.power(call.number(beta_2), t)
    alpha = learning_rate * np.sqrt(1 - beta_2_power) / (1 - beta_1_power)
    new_slots = moments(gradient, slots, beta_1, beta_2)
    v = new_slots["velocity"]
    if "velocity_hat" in slots:
        v = np.maximum(slots["velocity_hat"], v)
        new_slots["velocity_hat"] = v
    step = new_slots["momentum"] * alpha / (np.sqrt(v) + call.optimizer.epsilon)
    return weight - step, new_slots


@rule(
    optimizers.AdamW,
    cases=[
        Case("default", lambda: optimizers.AdamW(0.01), (3, 4)),
        Case("decay", lambda: optimizers.AdamW(0.01, weight_decay=0.3, amsgrad=True), (3, 4)),
    ],
    source="keras/src/optimizers/adamw.py",
    slots=(*SLOTS, ("velocity_hat", Slot.VELOCITY_HATS)),
    elementwise=True,
)
@rule(
    optimizers.Adam,
    cases=[
        Case("default", lambda: optimizers.Adam(0.01), (3, 4)),
        Case("betas", lambda: optimizers.Adam(0.01, beta_1=0.8, beta_2=0.95, epsilon=1e-3), (3, 4)),
        Case("amsgrad", lambda: optimizers.Adam(0.01, amsgrad=True), (3, 4)),
    ],
    source="keras/src/optimizers/adam.py",
    slots=(*SLOTS, ("velocity_hat", Slot.VELOCITY_HATS)),
    elementwise=True,
)
def adam(call, weight, gradient, slots):
    """Apply step t of Adam with learning rate η (Kingma and Ba 2015, the form before section 2.1).

    Shapes: weight, gradient, momentum m, velocity v and velocity_hat alike.
    Update: m' = m + (g − m)(1 − β₁); v' = v + (g² − v)(1 − β₂); with amsgrad v̂' = max(v̂, v') takes
            the place of v'; w − α m' / (sqrt(v') + ε) with α = η sqrt(1 − β₂ᵗ) / (1 − β₁ᵗ).
    """
    beta_1, beta_2 = call.optimizer.beta_1, call.optimizer.beta_2
    return adam_step(call, weight, gradient, slots, call.learning_rate, beta_1, beta_2)
