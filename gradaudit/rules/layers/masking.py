"""Masking."""

import numpy as np
from keras import layers

from gradaudit.rules.registry import Case, rule


def _kept(call, x):
    """Return which places of x have a feature other than mask_value: what Keras's mask is.

    TensorFlow makes the value a float32, whatever x is, and compares in at least that.
    """
    return np.any(call.numbers(x) != float(np.float32(call.layer.mask_value)), axis=-1)


@rule(
    layers.Masking,
    cases=[
        Case("zeros", lambda: layers.Masking(), (4, 6, 1), ties=True),
        Case("another value", lambda: layers.Masking(mask_value=1.0), (4, 6, 1), ties=True),
        Case("no such value", lambda: layers.Masking(mask_value=0.1), (2, 3, 4)),
        Case("2-D", lambda: layers.Masking(), (8, 1), ties=True),
    ],
    source="keras/src/layers/core/masking.py",
    mask=lambda call, x, mask: _kept(call, x),
)
def masking(call, x):
    """Apply y = x where any feature differs from mask_value, and 0 elsewhere.

    Shapes: x and y (N, ..., F); the mask (N, ...).
    VJP:    dx = dy where x was kept, 0 elsewhere.
    Kinks:  y jumps where all features come to be mask_value; none besides.
    """
    kept = _kept(call, x)[..., None]
    return np.where(kept, x, 0.0), lambda dy: (np.where(kept, dy, 0.0), {})
