"""AlphaDropout."""

import numpy as np
from keras import layers

from gradaudit.rules.activations import SELU_ALPHA, SELU_SCALE
from gradaudit.rules.registry import Case, rule

_DROPPED = -SELU_ALPHA * SELU_SCALE
"""What SELU tends to on the left: −alpha · scale."""


@rule(
    layers.AlphaDropout,
    cases=[
        Case("training", lambda: layers.AlphaDropout(0.4, seed=3), (6, 5)),
        Case("shared", lambda: layers.AlphaDropout(0.4, noise_shape=(None, 1), seed=3), (6, 5)),
        Case("nothing", lambda: layers.AlphaDropout(0.0), (6, 5)),
        Case("inference", lambda: layers.AlphaDropout(0.4), (6, 5), training=False),
    ],
    source="keras/src/layers/regularization/alpha_dropout.py",
)
def alpha_dropout(call, x):
    """Apply y = a x + b where the step's own mask keeps x, and a α + b elsewhere.

    α is what SELU tends to on the left; a = ((1 − rate) (1 + rate α²))^(−1/2) and b = −a α rate
    keep mean 0 and variance 1.

    Shapes: x and y alike; the mask has shape noise_shape, broadcast.
    VJP:    dx = a dy where x was kept, 0 elsewhere.
    Kinks:  none: the mask does not depend on x.
    """
    rate = call.layer.rate
    if not call.training or rate == 0:
        return x, lambda dy: (dy, {})
    noise_shape = call.layer.noise_shape or x.shape
    noise_shape = tuple(
        whole if size is None else size for size, whole in zip(noise_shape, x.shape, strict=True)
    )
    drawn = call.draw(call.layer, "uniform", noise_shape, dtype=call.config.floatx)
    kept = np.broadcast_to(drawn >= rate, x.shape)
    a = ((1 - rate) * (1 + rate * _DROPPED**2)) ** -0.5
    y = a * np.where(kept, x, _DROPPED) - a * _DROPPED * rate
    return y, lambda dy: (np.where(kept, a * dy, 0.0), {})
