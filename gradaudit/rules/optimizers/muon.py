"""Muon."""

import numpy as np
from keras import optimizers

from gradaudit import keras_compat
from gradaudit.numerics import newton_schulz
from gradaudit.rules.optimizers.adam import adam_step
from gradaudit.rules.registry import Case, rule


def _weight_decay(optimizer, variable):
    """Return the decay of one weight; weights that Muon gives to Adam have a decay of their own.

    Muon shows Keras's variable (kernel) to `exclude_from_weight_decay`, not TensorFlow's.
    """
    decay = optimizer.weight_decay
    if keras_compat.muon_uses_adam(optimizer, variable):
        decay = optimizer.adam_weight_decay
    return decay if keras_compat.may_decay(optimizer, variable) else None


@rule(
    optimizers.Muon,
    cases=[
        Case("wide", lambda: optimizers.Muon(0.01), (3, 4)),
        Case("tall", lambda: optimizers.Muon(0.01), (4, 2)),
        Case("vector", lambda: optimizers.Muon(0.01), (5,)),
        Case("plain", lambda: optimizers.Muon(0.01, nesterov=False, momentum=0.8), (3, 4)),
        Case("steps", lambda: optimizers.Muon(0.01, ns_steps=2), (3, 4)),
        Case(
            "polynomial", lambda: optimizers.Muon(0.01, muon_a=2, muon_b=-1.5, muon_c=0.5), (3, 4)
        ),
        Case("unadjusted", lambda: optimizers.Muon(0.01, rms_rate=None), (3, 4)),
        Case(
            "decays",
            lambda: optimizers.Muon(0.01, weight_decay=0.3, adam_weight_decay=None),
            (3, 4),
        ),
        Case(
            "adam",
            lambda: optimizers.Muon(
                0.01, 0.8, 0.95, 0.3, epsilon=1e-3, adam_lr_ratio=0.1, exclude_layers=["weight"]
            ),
            (3, 4),
        ),
    ],
    source="keras/src/optimizers/muon.py",
    slots=(("momentum", "momentums"), ("velocity", "adam_velocities")),
    weight_decay=_weight_decay,
)
def muon(call, weight, gradient, slots):
    """Apply one step of Muon with learning rate η (Jordan et al. 2024); of Adam where v is held.

    Shapes: weight, gradient, momentum m and velocity v alike.
    Update: m' = m + (g + (μ − 1) m); h = g + μ m' with nesterov, else m'; w − s with the step
            s = η orthogonalized(h) sqrt(max(I, O)) rms_rate. Adam: as `adam`, with η adam_lr_ratio.
    """
    optimizer = call.optimizer
    if "velocity" in slots:
        rate = call.learning_rate * optimizer.adam_lr_ratio
        betas = optimizer.adam_beta_1, optimizer.adam_beta_2
        return adam_step(call, weight, gradient, slots, rate, *betas)
    m = slots["momentum"] + (gradient + slots["momentum"] * (optimizer.momentum - 1))
    h = gradient + m * optimizer.momentum if optimizer.nesterov else m
    coefficients = optimizer.muon_a, optimizer.muon_b, optimizer.muon_c
    step = orthogonalized(h, optimizer.ns_steps, coefficients) * call.learning_rate
    if optimizer.rms_rate is not None:
        step = step * np.sqrt(call.number(max(weight.shape))) * optimizer.rms_rate
    return weight - step, {"momentum": m}


def orthogonalized(x, steps, coefficients):
    """Return about U Vᵀ for x = U S Vᵀ, by Newton-Schulz iterations that lead S to 1.

    Shapes: x (I, O), transposed where I > O.
    """
    if x.shape[0] > x.shape[1]:
        return orthogonalized(x.T, steps, coefficients).T
    norm = np.sqrt(np.sum(np.square(x), axis=(0, 1), keepdims=True))
    return newton_schulz(x / (norm + 1e-7), steps, coefficients)
