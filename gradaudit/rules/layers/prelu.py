"""PReLU."""

import numpy as np
from keras import activations, layers

from gradaudit.numerics import estimated, numbers
from gradaudit.rules.context import apply_activation
from gradaudit.rules.primitives.broadcasting import unbroadcast
from gradaudit.rules.registry import Case, rule


@rule(
    layers.PReLU,
    cases=[
        Case("a slope for each", lambda: layers.PReLU(), (4, 5), kinks=(0.0,)),
        Case("shared axis", lambda: layers.PReLU(shared_axes=1), (2, 3, 4), kinks=(0.0,)),
        Case("shared axes", lambda: layers.PReLU(shared_axes=[1, 2]), (2, 3, 4, 2)),
        Case("one slope", lambda: layers.PReLU(shared_axes=[1]), (4, 5)),
    ],
    source="keras/src/layers/activations/prelu.py",
    weights=("alpha",),
)
def prelu(call, x):
    """Apply y = relu(x) − alpha relu(−x).

    Shapes: x and y (N, ...); alpha (...), 1 along shared axes.
    VJP:    dx = dy where x > 0, alpha dy where x < 0; dalpha = −Σ relu(−x) dy, over the batch and
            the shared axes.
    Kinks:  at 0, where both parts have slope 0 in TensorFlow. That lies between the slopes before
            and behind, alpha and 1, only where alpha ≤ 0; elsewhere dx = min(alpha, 1) dy.
    """
    alpha = call.weights["alpha"]
    above, above_vjp = apply_activation(activations.relu, x)
    below, below_vjp = apply_activation(activations.relu, -x)

    tied = call.numbers(x) == 0
    if np.any(tied & (call.numbers(alpha) > 0)):
        where = "where x is 0: it is 0, and the slopes are alpha before and 1 behind"
        call.misleads("Relu", where)

    def vjp(dy):
        dx = above_vjp(dy) - below_vjp(-alpha * dy)
        if tied.any():
            between = np.clip(alpha, 0.0, 1.0) * dy
            theirs = np.where(tied, np.abs(numbers(between)), 0.0)  # how far 0 is from it
            dx = estimated(np.where(tied, between, dx), np.zeros(()), theirs)
        return dx, {"alpha": unbroadcast(-(below * dy), alpha.shape)}

    return above + -alpha * below, vjp
