"""Adadelta."""

import numpy as np
from keras import optimizers

from gradaudit.keras_compat import Slot
from gradaudit.rules.registry import Case, rule


@rule(
    optimizers.Adadelta,
    cases=[
        Case("default", lambda: optimizers.Adadelta(0.1), (3, 4)),
        Case("rho", lambda: optimizers.Adadelta(0.1, rho=0.7, epsilon=1e-3), (3, 4)),
    ],
    source="keras/src/optimizers/adadelta.py",
    slots=(
        ("accumulated_grad", Slot.ADADELTA_GRADIENTS),
        ("accumulated_delta", Slot.ADADELTA_DELTAS),
    ),
    elementwise=True,
)
def adadelta(call, weight, gradient, slots):
    """Apply one step of Adadelta with learning rate η (Zeiler 2012).

    Shapes: weight, gradient, accumulated_grad a and accumulated_delta d alike.
    Update: a' = ρ a + (1 − ρ) g²; Δ = −sqrt(d + ε) g / sqrt(a' + ε); d' = ρ d + (1 − ρ) Δ²;
            w + η Δ.
    """
    rho, epsilon = call.optimizer.rho, call.optimizer.epsilon
    a = slots["accumulated_grad"] * rho + np.square(gradient) * (1 - rho)
    delta = -np.sqrt(slots["accumulated_delta"] + epsilon) * gradient * np.power(a + epsilon, -0.5)
    d = slots["accumulated_delta"] * rho + np.square(delta) * (1 - rho)
    return weight + delta * call.learning_rate, {"accumulated_grad": a, "accumulated_delta": d}
