"""Adagrad."""

import numpy as np
from keras import optimizers

from gradaudit.keras_compat import Slot
from gradaudit.rules.registry import Case, rule


@rule(
    optimizers.Adagrad,
    cases=[
        Case("default", lambda: optimizers.Adagrad(0.01), (3, 4)),
        Case("epsilon", lambda: optimizers.Adagrad(0.01, epsilon=0.01), (3, 4)),
        Case("initial", lambda: optimizers.Adagrad(0.01, initial_accumulator_value=2.0), (3, 4)),
    ],
    source="keras/src/optimizers/adagrad.py",
    slots=(("accumulator", Slot.ACCUMULATORS),),
    elementwise=True,
)
def adagrad(call, weight, gradient, slots):
    """Apply one step of Adagrad with learning rate η (Duchi et al. 2011).

    Shapes: weight, gradient and accumulator a alike.
    Update: a' = a + g²; w − η g / sqrt(a' + ε).
    """
    a = slots["accumulator"] + np.square(gradient)
    step = gradient * call.learning_rate * np.power(a + call.optimizer.epsilon, -0.5)
    return weight - step, {"accumulator": a}
