"""What every optimizer does around its own step: clipping, weight decay, moving averages."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradaudit import keras_compat
from gradaudit.numerics.arithmetic import Array
from gradaudit.rules.registry import rule_for


def clipped(optimizer: Any, gradient: Array, norm: Array | None) -> Array:
    """Return a gradient g as the optimizer clips it.

    norm: the global norm of the gradients that are clipped together, under `global_clipnorm`.
    clipnorm c: c g / max(‖g‖, c). global_clipnorm c: g c min(1/norm, 1/c). clipvalue v: each
    element between −v and v.
    """
    if optimizer.clipnorm and optimizer.clipnorm > 0:
        c = optimizer.clipnorm
        own = np.sqrt(np.sum(np.square(gradient)))
        return gradient * c / np.maximum(own, c)
    if norm is not None:
        c = optimizer.global_clipnorm
        # norm − norm is 0 if the norm is finite, and NaN otherwise.
        return gradient * (np.minimum(1.0 / norm, 1.0 / c) * c + (norm - norm))
    if optimizer.clipvalue and optimizer.clipvalue > 0:
        return np.clip(gradient, -optimizer.clipvalue, optimizer.clipvalue)
    return gradient


def global_norm(squares: Sequence[Array]) -> Array:
    """Return the norm of several gradients, from the sum of the squares of each."""
    return np.sqrt(np.sum(np.concatenate([np.reshape(square, (1,)) for square in squares])))


def weight_decay(optimizer: Any, variable: Any) -> float | None:
    """Return the decay of one weight, by the optimizer's rule; None where it does not decay.

    Keras shows TensorFlow's variable with its name (dense/kernel:0) to `exclude_from_weight_decay`.
    """
    known = rule_for(optimizer)
    if known.weight_decay is not None:
        return known.weight_decay(optimizer, variable)
    decay = optimizer.weight_decay
    decays = decay is not None and keras_compat.may_decay(optimizer, variable.value)
    return decay if decays else None


def decayed(weight: Array, decay: Array, learning_rate: Array) -> Array:
    """Return w − λ η w, decoupled from the gradient (Loshchilov and Hutter 2019)."""
    return weight - weight * decay * learning_rate


def moving_average(average: Array, weight: Array, momentum: Array) -> Array:
    """Return the exponential moving average of a weight, μ a + (1 − μ) w."""
    return average * momentum + weight * (1 - momentum)
