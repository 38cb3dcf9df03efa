"""AdaptiveMaxPooling and AdaptiveAveragePooling in 1D, 2D and 3D."""

import numpy as np
from keras import layers, ops

from gradaudit.numerics import scatter_add
from gradaudit.rules.layers.families.spatial import FIRST, with_channels_last
from gradaudit.rules.primitives.pooling import average_pool, max_pool
from gradaudit.rules.primitives.windows import Windows
from gradaudit.rules.registry import Case, rule

_SOURCE = "keras/src/layers/pooling/"


def _depth_last(layer, x, **mode):
    """Pool planes and then their depth in float64, for which TensorFlow has no other kernel."""
    if ops.dtype(x) != "float64":
        return layer(x, **mode)
    (n, depth, *plane, channels), (deep, *flat) = x.shape, layer.output_size
    x = ops.reshape(x, (n * depth, *plane, channels))
    x = ops.adaptive_max_pool(x, flat, data_format="channels_last")
    x = ops.reshape(x, (n, depth, -1, channels))
    x = ops.adaptive_max_pool(x, (deep, x.shape[2]), data_format="channels_last")
    return ops.reshape(x, (n, deep, *flat, channels))


def _adaptive(call, x, pool):
    """Pool one axis after the other; pool takes an array and windows."""

    def forward(x):
        vjps = []
        for axis, count in enumerate(call.layer.output_size, start=1):
            x, vjp = _along(x, axis, count, pool)
            vjps.append(vjp)

        def all_vjp(dy):
            for vjp in reversed(vjps):
                dy = vjp(dy)
            return dy

        return x, all_vjp

    return with_channels_last(call.layer, x, forward)


def _along(x, axis, count, pool):
    """Pool an axis of n cells to count windows: window q from ⌊q n / count⌋ to ⌈(q + 1) n / count⌉.

    Windows have ⌈n / count⌉ cells or one more: all windows of both sizes are pooled, and chosen of.
    """
    n = x.shape[axis]
    first = np.arange(count) * n // count
    last = -(-np.arange(1, count + 1) * n // count)
    pooled, place = [], np.zeros(count, int)
    for size in np.unique(last - first):
        spans = [int(size) if a == axis else 1 for a in range(1, x.ndim - 1)]
        place = np.where(last - first == size, first + sum(y.shape[axis] for y, _ in pooled), place)
        pooled.append(pool(x, Windows.over(x.shape[1:-1], spans, [1] * len(spans))))
    both = np.concatenate([y for y, _ in pooled], axis=axis)

    def vjp(dy):
        rows = scatter_add(np.moveaxis(dy, axis, 0), place, both.shape[axis])
        parts, start = [], 0
        for y, part_vjp in pooled:
            part = rows[start : start + y.shape[axis]]
            parts.append(part_vjp(np.moveaxis(part, 0, axis)))
            start += y.shape[axis]
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    return np.take(both, place, axis=axis), vjp


@rule(
    layers.AdaptiveMaxPooling1D,
    cases=[
        Case("equal windows", lambda: layers.AdaptiveMaxPooling1D(2), (2, 6, 3), kinks=(0.0,)),
        Case("two sizes", lambda: layers.AdaptiveMaxPooling1D(4), (2, 7, 3), ties=True),
        Case("more than cells", lambda: layers.AdaptiveMaxPooling1D(5), (2, 3, 3)),
        Case("channels first", lambda: layers.AdaptiveMaxPooling1D(3, **FIRST), (2, 2, 5)),
    ],
    source=_SOURCE + "adaptive_max_pooling1d.py",
)
@rule(
    layers.AdaptiveMaxPooling2D,
    cases=[
        Case("two sizes", lambda: layers.AdaptiveMaxPooling2D((3, 2)), (2, 5, 4, 2), ties=True),
        Case("channels first", lambda: layers.AdaptiveMaxPooling2D(2, **FIRST), (2, 2, 3, 5)),
    ],
    source=_SOURCE + "adaptive_max_pooling2d.py",
)
@rule(
    layers.AdaptiveMaxPooling3D,
    cases=[
        Case(
            "two sizes",
            lambda: layers.AdaptiveMaxPooling3D((2, 3, 2)),
            (2, 3, 5, 4, 2),
            kinks=(0.0,),
            apply=_depth_last,
        ),
    ],
    source=_SOURCE + "adaptive_max_pooling3d.py",
)
def adaptive_max_pooling(call, x):
    """Apply y = the largest cell of each window, along one axis after the other.

    Shapes: x (N, *cells, C), y (N, *output_size, C); channels first: x (N, C, *cells).
    VJP:    that of the pooling of each axis, from the last to the first.
    Kinks:  where two cells of a window are the largest; the first one has the cotangent.
    """
    return _adaptive(call, x, max_pool)


@rule(
    layers.AdaptiveAveragePooling1D,
    cases=[
        Case("equal windows", lambda: layers.AdaptiveAveragePooling1D(2), (2, 6, 3)),
        Case("two sizes", lambda: layers.AdaptiveAveragePooling1D(4), (2, 7, 3)),
        Case("more than cells", lambda: layers.AdaptiveAveragePooling1D(5), (2, 3, 3)),
        Case("channels first", lambda: layers.AdaptiveAveragePooling1D(3, **FIRST), (2, 2, 5)),
    ],
    source=_SOURCE + "adaptive_average_pooling1d.py",
)
@rule(
    layers.AdaptiveAveragePooling2D,
    cases=[
        Case("two sizes", lambda: layers.AdaptiveAveragePooling2D((3, 2)), (2, 5, 4, 2)),
        Case("channels first", lambda: layers.AdaptiveAveragePooling2D(2, **FIRST), (2, 2, 3, 5)),
    ],
    source=_SOURCE + "adaptive_average_pooling2d.py",
)
@rule(
    layers.AdaptiveAveragePooling3D,
    cases=[
        Case(
            "two sizes",
            lambda: layers.AdaptiveAveragePooling3D((2, 3, 2)),
            (2, 3, 5, 4, 2),
            compiled=True,
        ),
    ],
    source=_SOURCE + "adaptive_average_pooling3d.py",
)
def adaptive_average_pooling(call, x):
    """Apply y = the mean of each window, along one axis after the other.

    Shapes: x (N, *cells, C), y (N, *output_size, C); channels first: x (N, C, *cells).
    VJP:    that of the pooling of each axis, from the last to the first.
    Kinks:  none.
    """
    return _adaptive(
        call, x, lambda x, windows: average_pool(x, windows, call.array(windows.filled))
    )
