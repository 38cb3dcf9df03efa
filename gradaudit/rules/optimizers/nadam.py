"""Nadam."""

import numpy as np
from keras import optimizers

from gradaudit.keras_compat import Slot
from gradaudit.rules.optimizers.adam import SLOTS, moments
from gradaudit.rules.registry import Case, rule


@rule(
    optimizers.Nadam,
    cases=[
        Case("default", lambda: optimizers.Nadam(0.01), (3, 4)),
        Case("betas", lambda: optimizers.Nadam(0.01, 0.8, 0.95, epsilon=1e-3), (3, 4)),
    ],
    source="keras/src/optimizers/nadam.py",
    slots=(*SLOTS, ("u_product", Slot.NADAM_PRODUCT)),
    elementwise=True,
)
def nadam(call, weight, gradient, slots):
    """Apply step t of Nadam with learning rate η (Dozat 2016).

    Shapes: weight, gradient, momentum m and velocity v alike; u_product Π is a number, one for all
            weights.
    Update: μₜ = β₁ (1 − 0.96ᵗ/2); Π' = Π μₜ; m', v' as in `moments`;
            m̂ = μₜ₊₁ m' / (1 − Π' μₜ₊₁) + (1 − μₜ) g / (1 − Π'); v̂ = v' / (1 − β₂ᵗ);
            w − η m̂ / (sqrt(v̂) + ε).
    """
    optimizer, t = call.optimizer, call.step + 1
    beta_1, beta_2 = call.number(optimizer.beta_1), call.number(optimizer.beta_2)
    decay = call.number(0.96)
    u_t = (1.0 - np.power(decay, t) * 0.5) * beta_1
    u_next = (1.0 - np.power(decay, t + 1) * 0.5) * beta_1
    new_slots = moments(gradient, slots, beta_1, beta_2)
    if "u_product" in slots:
        product = slots["u_product"] * optimizer.beta_1 * _factors(call, t)
        new_slots["u_product"] = product
    else:  # a LossScaleOptimizer does not track it: all its factors once more
        product = _product(_factors(call, np.arange(1, t + 1)) * optimizer.beta_1)
    m_hat = new_slots["momentum"] * u_next / (1 - product * u_next)
    m_hat = m_hat + gradient * (1 - u_t) / (1 - product)
    v_hat = new_slots["velocity"] / (1 - np.power(beta_2, t))
    step = m_hat * call.learning_rate / (np.sqrt(v_hat) + optimizer.epsilon)
    return weight - step, new_slots


def _factors(call, t):
    """Return 1 − 0.96ᵗ/2; here, and only here, Keras does not cast 0.96 by way of float32."""
    return 1.0 - np.power(0.96, call.arithmetic.array(t, call.dtype)) * 0.5


def _product(x):
    """Return the product of the elements of x, of shape (T,)."""
    while len(x) > 1:
        half = len(x) // 2
        x = np.concatenate([x[:half] * x[half : 2 * half], x[2 * half :]])
    return x[0]
