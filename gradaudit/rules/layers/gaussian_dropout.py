"""GaussianDropout."""

import math

from keras import layers

from gradaudit.rules.registry import Case, rule


@rule(
    layers.GaussianDropout,
    cases=[
        Case("training", lambda: layers.GaussianDropout(0.4, seed=3), (6, 5)),
        Case("nothing", lambda: layers.GaussianDropout(0.0), (6, 5)),
        Case("inference", lambda: layers.GaussianDropout(0.4), (6, 5), training=False),
    ],
    source="keras/src/layers/regularization/gaussian_dropout.py",
)
def gaussian_dropout(call, x):
    """Apply y = x noise, the noise that the step drew from N(1, rate / (1 − rate)).

    Shapes: x, noise and y alike.
    VJP:    dx = noise dy.
    Kinks:  none.
    """
    rate = call.layer.rate
    if not call.training or rate == 0:
        return x, lambda dy: (dy, {})
    stddev = math.sqrt(rate / (1.0 - rate))
    noise = call.array(call.draw(call.layer, "normal", x.shape, mean=1.0, stddev=stddev))
    return x * noise, lambda dy: (noise * dy, {})
