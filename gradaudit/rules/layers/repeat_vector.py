"""RepeatVector."""

import numpy as np
from keras import layers

from gradaudit.rules.registry import Case, rule


@rule(
    layers.RepeatVector,
    cases=[
        Case("three times", lambda: layers.RepeatVector(3), (2, 4)),
        Case("once", lambda: layers.RepeatVector(1), (2, 4)),
    ],
    source="keras/src/layers/reshaping/repeat_vector.py",
    integers=True,
)
def repeat_vector(call, x):
    """Put n copies of each row one after the other.

    Shapes: x (N, F), y (N, n, F).
    VJP:    dx = Σ dy over the copies.
    Kinks:  none.
    """
    y = np.repeat(x.reshape(x.shape[0], 1, -1), call.layer.n, axis=1)
    return y, lambda dy: (dy.sum(axis=1), {})
