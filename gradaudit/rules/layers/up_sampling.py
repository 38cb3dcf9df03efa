"""UpSampling1D, UpSampling2D and UpSampling3D."""

import numpy as np
from keras import layers

from gradaudit.rules.layers.families.spatial import FIRST
from gradaudit.rules.registry import Case, rule

_SOURCE = "keras/src/layers/reshaping/up_sampling{}d.py"


def _case(name, layer, shape, size, **options):
    return Case(name, lambda: layer(size, **options), shape)


def _interpolation(layer):
    if layer.interpolation == "nearest":
        return []
    return [f"interpolation {layer.interpolation!r}, which TensorFlow always computes in float32"]


def _repeat(x, size, axis):
    """Return x with each element `size` times along an axis, and the VJP: sums of the copies."""
    y = np.repeat(x, size, axis=axis)
    apart = (*x.shape[: axis + 1], size, *x.shape[axis + 1 :])
    return y, lambda dy: dy.reshape(apart).sum(axis=axis + 1)


@rule(
    layers.UpSampling1D,
    cases=[
        _case("twice", layers.UpSampling1D, (2, 3, 2), 2),
        _case("once", layers.UpSampling1D, (2, 3, 2), 1),
    ],
    source=_SOURCE.format(1),
)
@rule(
    layers.UpSampling2D,
    cases=[
        _case("twice", layers.UpSampling2D, (2, 2, 3, 2), 2),
        _case("by axis", layers.UpSampling2D, (2, 2, 3, 2), (3, 1)),
        _case("channels first", layers.UpSampling2D, (2, 3, 2, 1), (2, 3), **FIRST),
    ],
    source=_SOURCE.format(2),
    gaps=_interpolation,
)
@rule(
    layers.UpSampling3D,
    cases=[
        _case("twice", layers.UpSampling3D, (2, 1, 2, 2, 3), 2),
        _case("by axis", layers.UpSampling3D, (2, 1, 2, 2, 3), (3, 1, 2)),
        _case("channels first", layers.UpSampling3D, (2, 3, 1, 2, 2), (2, 1, 3), **FIRST),
    ],
    source=_SOURCE.format(3),
)
def up_sampling(call, x):
    """Repeat each element size[i] times along spatial axis i.

    Other interpolations than the nearest neighbour are not derived: TensorFlow computes them in
    float32 whatever the model's precision, so that no float64 computation of it can be compared.

    Shapes: x (N, ..., C), or (N, C, ...) with channels first; y larger by the factors.
    VJP:    dx = Σ dy over the copies, the last axis first.
    Kinks:  none.
    Gaps:   interpolation= other than "nearest", of UpSampling2D.
    """
    first = 2 if getattr(call.layer, "data_format", None) == "channels_first" else 1
    y, vjps = x, []
    for axis, size in enumerate(np.atleast_1d(call.layer.size).tolist(), first):
        y, vjp = _repeat(y, size, axis)
        vjps.append(vjp)

    def vjp(dy):
        for repeat_vjp in reversed(vjps):
            dy = repeat_vjp(dy)
        return dy, {}

    return y, vjp
