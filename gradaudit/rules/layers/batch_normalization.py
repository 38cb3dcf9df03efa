"""BatchNormalization."""

import numpy as np
from keras import layers

from gradaudit.rules.layers.families.precision import at_least_single, single_or_wider
from gradaudit.rules.primitives.moments import moments, standardize
from gradaudit.rules.registry import Case, rule

_BN = layers.BatchNormalization
_KEPT = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 1, 1]], bool)


@rule(
    layers.BatchNormalization,
    cases=[
        Case("training", lambda: _BN(), (5, 3)),
        Case("images", lambda: _BN(), (2, 3, 2, 4)),
        Case("channels first", lambda: _BN(axis=1), (3, 4, 2)),
        Case("inference", lambda: _BN(), (5, 3), training=False),
        Case("inference, channels first", lambda: _BN(axis=-2), (3, 4, 2), training=False),
        Case("frozen", lambda: _BN(trainable=False), (5, 3)),
        Case("large mean", lambda: _BN(), (5, 3), inputs="offset"),
        Case("no center", lambda: _BN(center=False), (5, 3)),
        Case("no scale", lambda: _BN(scale=False), (5, 3)),
        Case("neither, epsilon", lambda: _BN(center=False, scale=False, epsilon=0.5), (5, 3)),
        Case("neither, inference", lambda: _BN(center=False, scale=False), (5, 3), training=False),
        Case("momentum", lambda: _BN(momentum=0.6), (5, 3)),
        Case("mask", lambda: _BN(), (4, 3, 2), arguments={"mask": _KEPT}),
        Case(
            "mask, inference", lambda: _BN(), (4, 3, 2), arguments={"mask": _KEPT}, training=False
        ),
    ],
    source="keras/src/layers/normalization/batch_normalization.py",
    weights=("gamma", "beta", "moving_mean", "moving_variance"),
    gaps=lambda layer: ["synchronized=True, by which replicas share moments"] * layer.synchronized,
)
def batch_normalization(call, x):
    """Apply y = (x − m) gamma / √(v + epsilon) + beta, m and v the moments over the other axes.

    In inference, and where the layer is not trainable, m and v are the moving ones. In training
    each of these becomes momentum times itself + (1 − momentum) times the batch's. A mask leaves
    elements out of the moments: sums are divided by the number kept + keras.config.epsilon().

    Shapes: x and y alike, C channels on the layer's axis; weights (C,).
    VJP:    that of `standardize`, and in training of `moments`.
    Kinks:  none.
    Gaps:   synchronized=True, by which replicas share moments.
    """
    layer = call.layer
    at = layer.axis % x.ndim
    along = [n if i == at else 1 for i, n in enumerate(x.shape)]
    axes = tuple(i for i in range(x.ndim) if i != at)
    weights = {name: weight.reshape(along) for name, weight in call.weights.items()}
    gamma, beta = weights.get("gamma"), weights.get("beta")
    mask = call.arguments.get("mask")
    kept = total = None
    if mask is not None:
        kept = np.broadcast_to(np.asarray(mask, bool)[..., None], x.shape)
        count = kept.sum(axis=axes, keepdims=True)
        total = call.arithmetic.array(count, single_or_wider(call.dtype)) + call.epsilon

    def forward(x):
        own = call.training and layer.trainable
        if own:
            mean, variance, moments_vjp = moments(x, axes, kept, total)
            for name, new in (("moving_mean", mean), ("moving_variance", variance)):
                moved = weights[name] * layer.momentum + new * (1.0 - layer.momentum)
                call.assign(name, moved.reshape(-1))
        else:
            mean, variance = weights["moving_mean"], weights["moving_variance"]
        y, y_vjp = standardize(x, mean, variance, gamma, beta, layer.epsilon)

        def vjp(dy):
            dx, dmean, dvariance, cotangents = y_vjp(dy)
            if own:
                dx = dx + moments_vjp(dmean, dvariance)
            else:
                cotangents |= {"moving_mean": dmean, "moving_variance": dvariance}
            return dx, {name: d.reshape(-1) for name, d in cotangents.items()}

        return y, vjp

    return at_least_single(call, forward, x)
