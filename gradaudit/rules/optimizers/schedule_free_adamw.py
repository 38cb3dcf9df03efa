"""ScheduleFreeAdamW."""

import numpy as np
from keras import optimizers

from gradaudit.rules.optimizers.adam import SLOTS
from gradaudit.rules.registry import Case, rule


@rule(
    optimizers.ScheduleFreeAdamW,
    cases=[
        Case("default", lambda: optimizers.ScheduleFreeAdamW(0.01), (3, 4)),
        Case("betas", lambda: optimizers.ScheduleFreeAdamW(0.01, 0.8, 0.95, epsilon=1e-3), (3, 4)),
        Case("warmup", lambda: optimizers.ScheduleFreeAdamW(0.01, warmup_steps=2), (3, 4)),
    ],
    source="keras/src/optimizers/schedule_free_adamw.py",
    slots=SLOTS,
    elementwise=True,
)
def schedule_free_adamw(call, weight, gradient, slots):
    """Apply step t of schedule-free AdamW with learning rate η (Defazio et al. 2024).

    Shapes: weight y, gradient, momentum z and velocity v alike.
    Update: η is multiplied by min(t / warmup_steps, 1); v' = v + (g² − v)(1 − β₂);
            z' = z − η g / (sqrt(v' / (1 − β₂ᵗ)) + ε); x = (y − (1 − β₁) z') / β₁;
            x' = (1 − 1/t) x + z'/t; (1 − β₁) z' + β₁ x'.
    """
    optimizer, t = call.optimizer, call.number(call.step + 1)
    beta_1, beta_2 = call.number(optimizer.beta_1), call.number(optimizer.beta_2)
    rate = call.learning_rate
    if optimizer.warmup_steps > 0:
        rate = rate * np.minimum(t * (1 / call.number(optimizer.warmup_steps)), 1.0)
    v = slots["velocity"] + (np.square(gradient) - slots["velocity"]) * (1 - beta_2)
    scale = np.sqrt(v / (1 - np.power(beta_2, t))) + call.number(optimizer.epsilon)
    z = slots["momentum"] - gradient * rate / scale
    # The paper has z here, not z'. Keras keeps a reference to the variable, and TensorFlow reads it
    # after the assignment: the new weight is then (1 − 1/t) y + z'/t, whatever β₁ is.
    # A graph divides by a constant in multiplying by its reciprocal, and multiplies numbers first.
    share = 1.0 / t
    x = (weight - z * (1 - beta_1)) * ((1 - share) * (1 / beta_1)) + z * share
    return z * (1 - beta_1) + x * beta_1, {"momentum": z, "velocity": v}
