"""Dropout."""

from keras import layers

from gradaudit.rules.layers.families.dropout import dropped
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
