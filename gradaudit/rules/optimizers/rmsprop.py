"""RMSprop, plain, centered and with momentum."""

import numpy as np
from keras import optimizers

from gradaudit.keras_compat import Slot
from gradaudit.rules.registry import Case, rule


@rule(
    optimizers.RMSprop,
    cases=[
        Case("default", lambda: optimizers.RMSprop(0.01), (3, 4)),
        Case("rho", lambda: optimizers.RMSprop(0.01, rho=0.7, epsilon=1e-3), (3, 4)),
        Case("momentum", lambda: optimizers.RMSprop(0.01, momentum=0.8), (3, 4)),
        Case("centered", lambda: optimizers.RMSprop(0.01, centered=True), (3, 4)),
        Case("both", lambda: optimizers.RMSprop(0.01, momentum=0.8, centered=True), (3, 4)),
    ],
    source="keras/src/optimizers/rmsprop.py",
    slots=(
        ("velocity", Slot.VELOCITIES),
        ("momentum", Slot.MOMENTUMS),
        ("average_gradient", Slot.AVERAGE_GRADIENTS),
    ),
    elementwise=True,
)
def rmsprop(call, weight, gradient, slots):
    """Apply one step of RMSprop with learning rate η (Tieleman and Hinton 2012).

    Shapes: weight, gradient, velocity v, momentum m and average_gradient a alike.
    Update: v' = ρ v + (1 − ρ) g²; centered: a' = ρ a + (1 − ρ) g, and v' − a'² takes the place of
            v' in the step s = η g / sqrt(v' + ε). Plain: w − s. Momentum: m' = μ m + s; w − m'.
    """
    optimizer, rho = call.optimizer, call.optimizer.rho
    v = slots["velocity"] * rho + np.square(gradient) * (1 - rho)
    new_slots, spread = {"velocity": v}, v
    if optimizer.centered:
        a = slots["average_gradient"] * rho + gradient * (1 - rho)
        new_slots["average_gradient"] = a
        spread = v - np.square(a)
    step = gradient * call.learning_rate * np.power(spread + optimizer.epsilon, -0.5)
    if optimizer.momentum > 0:
        step = slots["momentum"] * optimizer.momentum + step
        new_slots["momentum"] = step
    return weight - step, new_slots
