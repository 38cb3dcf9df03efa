"""Rescaling."""

import numpy as np
from keras import layers

from gradaudit.rules.registry import Case, rule


@rule(
    layers.Rescaling,
    cases=[
        Case("numbers", lambda: layers.Rescaling(1 / 255, offset=-1.0), (3, 4)),
        Case("no offset", lambda: layers.Rescaling(0.3), (3, 4)),
        Case("by channel", lambda: layers.Rescaling([0.1, 2.0], offset=[1.0, -0.3]), (3, 4, 2)),
    ],
    source="keras/src/layers/preprocessing/rescaling.py",
)
def rescaling(call, x):
    """Apply y = scale x + offset.

    Where images have their channels first by default, a scale for each channel stands before the
    spatial axes, but an offset for each stays along the last axis, as in Keras.

    Shapes: x and y alike; scale and offset are numbers, or (C,).
    VJP:    dx = scale dy.
    Kinks:  none.
    """
    # TensorFlow makes Python numbers float32 before it casts them to any other dtype.
    numbers = (call.layer.scale, call.layer.offset)
    scale, offset = (call.array(np.asarray(each, np.float32)) for each in numbers)
    if scale.ndim > 0 and call.config.image_data_format == "channels_first":
        scale = scale.reshape(*scale.shape, *(1,) * (3 - scale.ndim))
    return x * scale + offset, lambda dy: (dy * scale, {})
