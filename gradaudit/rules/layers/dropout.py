"""Dropout."""

import numpy as np
from keras import layers

from gradaudit.rules.registry import Case, rule


@rule(
    layers.Dropout,
    cases=[
        Case("training", lambda: layers.Dropout(0.4, seed=3), (6, 5)),
        Case("shared mask", lambda: layers.Dropout(0.4, noise_shape=(None, 1), seed=3), (6, 5)),
        Case("inference", lambda: layers.Dropout(0.4), (6, 5), training=False),
        Case("nothing", lambda: layers.Dropout(0.0), (6, 5)),
        Case("everything", lambda: layers.Dropout(1.0), (6, 5)),
    ],
    source="keras/src/layers/regularization/dropout.py",
)
def dropout(call, x):
    """Apply y = x / (1 − rate) where the step's own mask keeps x, and 0 elsewhere.

    Shapes: x and y alike; the mask has shape noise_shape, broadcast.
    VJP:    dx = dy / (1 − rate) where x was kept, 0 elsewhere.
    Kinks:  none: the mask does not depend on x.
    """
    return dropped(call, x, call.layer.rate, call.layer.noise_shape)


def dropped(call, x, rate, noise_shape=None):
    """Return x after a dropout, whose mask may have a shape of its own, and the VJP."""
    if not call.training or rate == 0:
        return x, lambda dy: (dy, {})
    if rate == 1:
        return np.zeros_like(x), lambda dy: (np.zeros_like(dy), {})
    kept = call.draw(call.layer, "dropout", x.shape, rate=rate, noise_shape=noise_shape) != 0
    scale = 1 / (1 - rate)
    return np.where(kept, x * scale, 0.0), lambda dy: (np.where(kept, dy * scale, 0.0), {})
