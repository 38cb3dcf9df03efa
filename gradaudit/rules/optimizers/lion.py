"""Lion."""

import numpy as np
from keras import optimizers

from gradaudit.keras_compat import Slot
from gradaudit.rules.registry import Case, rule


@rule(
    optimizers.Lion,
    cases=[
        Case("default", lambda: optimizers.Lion(0.01), (3, 4)),
        Case("betas", lambda: optimizers.Lion(0.01, beta_1=0.6, beta_2=0.8), (3, 4)),
    ],
    source="keras/src/optimizers/lion.py",
    slots=(("momentum", Slot.MOMENTUMS),),
    elementwise=True,
)
def lion(call, weight, gradient, slots):
    """Apply one step of Lion with learning rate η (Chen et al. 2023).

    Shapes: weight, gradient and momentum m alike.
    Update: w − η sign(β₁ m + (1 − β₁) g); m' = β₂ m + (1 − β₂) g.
    """
    m = slots["momentum"]
    beta_1, beta_2 = call.number(call.optimizer.beta_1), call.number(call.optimizer.beta_2)
    direction = np.sign(m * beta_1 + gradient * (1.0 - beta_1))
    new_momentum = m * beta_2 + gradient * (1.0 - beta_2)
    return weight - direction * call.learning_rate, {"momentum": new_momentum}
