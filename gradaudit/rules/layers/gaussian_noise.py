"""GaussianNoise."""

from keras import layers

from gradaudit.rules.registry import Case, rule


@rule(
    layers.GaussianNoise,
    cases=[
        Case("training", lambda: layers.GaussianNoise(0.4, seed=3), (6, 5)),
        Case("nothing", lambda: layers.GaussianNoise(0.0), (6, 5)),
        Case("inference", lambda: layers.GaussianNoise(0.4), (6, 5), training=False),
    ],
    source="keras/src/layers/regularization/gaussian_noise.py",
)
def gaussian_noise(call, x):
    """Apply y = x + noise, the noise that the step drew from N(0, stddev²).

    Shapes: x, noise and y alike.
    VJP:    dx = dy.
    Kinks:  none.
    """
    stddev = call.layer.stddev
    if not call.training or stddev == 0:
        return x, lambda dy: (dy, {})
    noise = call.draw(call.layer, "normal", x.shape, mean=0.0, stddev=stddev)
    return x + call.array(noise), lambda dy: (dy, {})
