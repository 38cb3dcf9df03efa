"""Normalization."""

import numpy as np
from keras import layers

from gradaudit.rules.registry import Case, rule


def _adapted(shape, **options):
    layer = layers.Normalization(**options)
    layer.adapt(np.random.default_rng(0).normal(2.0, 3.0, shape))
    return layer


@rule(
    layers.Normalization,
    cases=[
        Case("adapted", lambda: _adapted((9, 4)), (3, 4)),
        Case("adapted over all", lambda: _adapted((9, 4), axis=None), (3, 4)),
        Case("two axes", lambda: _adapted((9, 2, 4), axis=(1, 2)), (3, 2, 4)),
        Case("first feature axis", lambda: _adapted((9, 2, 4), axis=1), (3, 2, 4)),
        Case("given", lambda: layers.Normalization(mean=[1.0, 2.0], variance=[0.3, 4.0]), (3, 2)),
        Case("numbers", lambda: layers.Normalization(axis=None, mean=3.0, variance=2.0), (3, 4)),
        Case("inverse", lambda: _adapted((9, 4), invert=True), (3, 4)),
        Case("no variance", lambda: layers.Normalization(mean=1.0, variance=0.0), (3, 4)),
    ],
    source="keras/src/layers/preprocessing/normalization.py",
    weights=("mean", "variance", "count"),
)
def normalization(call, x):
    """Apply y = (x − mean) / s, s = max(sqrt(variance), ε); inverted, y = mean + x s.

    The layer computes with the mean and variance that it held when it was built or last adapted,
    not with its variables: setting these later changes nothing.

    Shapes: x and y alike; mean and variance have 1 along the axes that were averaged over.
    VJP:    dx = dy / s, or dy s.
    Kinks:  none.
    """
    mean, variance = (call.array(np.asarray(v)) for v in (call.layer.mean, call.layer.variance))
    variance = np.maximum(variance, (call.epsilon / 2) ** 2)  # the root has no slope at 0
    scale = np.maximum(np.sqrt(variance), call.epsilon)
    if call.layer.invert:
        return mean + x * scale, lambda dy: (dy * scale, {})
    return (x - mean) / scale, lambda dy: (dy / scale, {})
