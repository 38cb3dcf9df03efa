"""Images resized: weighted sums of cells along both axes.

TensorFlow computes places and weights in float32, and so do these entries: the op's inputs decide
them, and the derivation has no part in them. Source: tensorflow/core/kernels/image.
"""

import functools
import math

import numpy as np

from gradaudit.numerics import scatter_add
from gradaudit.tracing.tf_ops.moving import moving
from gradaudit.tracing.tf_ops.table import op

_F = np.float32


def _weighted(x, axis, places, weights):
    """Return y = Σₖ weightsₖ x[placesₖ] along an axis, and its VJP: dx = Σₖ dy weightsₖ at placesₖ.

    Shapes: places and weights (taps, n of y).
    """
    lines = [-1 if i == axis else 1 for i in range(x.ndim)]
    factors = [weights[k].reshape(lines) for k in range(len(places))]
    cells = [np.take(x, at, axis) for at in places]

    def vjp(dy):
        rows = [np.moveaxis(dy * w, axis, 0) for w in factors]
        dx = scatter_add(np.concatenate(rows), places.reshape(-1), x.shape[axis])
        return np.moveaxis(dx, 0, axis)

    if len(cells) == 2:  # as TensorFlow has it, whose error is that of the difference
        return cells[0] + (cells[1] - cells[0]) * factors[1], vjp
    return np.stack([c * w for c, w in zip(cells, factors, strict=True)]).sum(axis=0), vjp


def _resized(node, x, size, taps, *others):
    """Return weighted sums along both spatial axes, in float32, and the entry's VJP.

    taps: (cells, count, *others of the axis) to places and weights, an array of this run.
    """
    arithmetic, vjps = node.run.arithmetic, []
    y = arithmetic.cast(x, node.dtype)
    for axis, (count, *more) in enumerate(zip(size.tolist(), *others, strict=True), start=1):
        places, weights = taps(x.shape[axis], count, *more)
        y, vjp = _weighted(y, axis, places, weights)
        vjps.append(vjp)

    def back(dy):
        for vjp in reversed(vjps):
            dy = vjp(dy)
        return arithmetic.cast(dy, node.op.operation.inputs[0].dtype.name)

    return y, lambda dy: (back(dy), *[None] * (len(node.op.inputs) - 1))


def _scale(node, cells, count):
    if node.attribute("align_corners") and count > 1:
        return _F(cells - 1) / _F(count - 1)
    return _F(cells) / _F(count)


def _centres(node, cells, count):
    """Return where in x the cells of y lie, as float32 has it."""
    i, scale = np.arange(count, dtype=_F), _scale(node, cells, count)
    return (i + _F(0.5)) * scale - _F(0.5) if node.attribute("half_pixel_centers") else i * scale


@moving("ResizeNearestNeighbor")
def resize_nearest(node, x, size):
    """Compute y = x at the nearest cell; dx = Σ dy over the places that a cell went to."""
    for axis, count in enumerate(size.tolist(), start=1):
        cells, i = x.shape[axis], np.arange(count, dtype=_F)
        half = _F(0.5 if node.attribute("half_pixel_centers") else 0.0)
        at = (i + half) * _scale(node, cells, count)
        at = np.floor(at + 0.5) if node.attribute("align_corners") else np.floor(at)
        x = np.take(x, np.clip(at, 0, cells - 1).astype(int), axis)
    return x


@op("ResizeBilinear")
def resize_bilinear(node, x, size):
    """Compute y = (1 − t) x[below] + t x[above] along both axes.

    VJP: dx = (1 − t) dy at below + t dy at above, summed over y.
    """

    def taps(cells, count):
        at = _centres(node, cells, count)
        below = np.floor(at)
        t = node.array(at - below)
        places = np.clip([below, np.ceil(at)], 0, cells - 1).astype(int)
        return places, np.stack([1 - t, t])

    return _resized(node, x, size, taps)


_TABLE = 1024
"""Bicubic weights are taken at so many places between two cells: resize_bicubic_op.cc."""


def _cubic(x, a):
    """Return R. Keys's cubic kernel (1981), of distances from 0 to 2."""
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, far)


@op("ResizeBicubic")
def resize_bicubic(node, x, size):
    """Compute y = Σₖ wₖ x[cellₖ] over four cells along both axes, w Keys's kernel.

    Cells beyond the image have no weight. VJP: dx = Σ wₖ dy at cellₖ, summed over y.
    """
    keys = node.attribute("half_pixel_centers")

    def taps(cells, count):
        at = _centres(node, cells, count)
        first, offsets = np.floor(at), np.arange(-1, 3)[:, None]
        distance = np.abs(offsets - np.rint((at - first) * _TABLE) / _TABLE)
        places = first + offsets
        weights = _cubic(distance, -0.5 if keys else -0.75).astype(_F)  # of a table in float64
        kept = np.clip(places, 0, cells - 1)
        if keys:
            weights = np.where(kept == places, weights, _F(0))
            weights = weights * (_F(1) / functools.reduce(np.add, weights))
        return kept.astype(int), node.array(weights)

    return _resized(node, x, size, taps)


def _lanczos(radius):
    def kernel(x):
        small, pi, r = x <= _F(1e-3), _F(np.pi), _F(radius)
        x = np.where(small, _F(1), x)
        inside = (
            r
            * _to_last_digit(np.sin, pi * x)
            * _to_last_digit(np.sin, pi * x / r)
            / (pi * pi * x * x)
        )
        return np.where(small, _F(1), np.where(x > radius, _F(0), inside))

    return radius, kernel


def _gaussian(x):
    return np.where(x >= 1.5, _F(0), _to_last_digit(np.exp, -(x * x) / _F(2 * 0.5 * 0.5)))


def _to_last_digit(function, x):
    """Return function(x) correctly rounded to float32; NumPy's own may be off in the last digit."""
    return function(x.astype(float)).astype(_F)


def _mitchell(x):
    near = ((_F(7 / 6) * x - 2) * x) * x + _F(8 / 9)
    far = ((_F(-7 / 18) * x + 2) * x - _F(10 / 3)) * x + _F(16 / 9)
    return np.where(x >= 2, _F(0), np.where(x >= 1, far, near))


_KERNELS = {
    b"lanczos1": _lanczos(1),
    b"lanczos3": _lanczos(3),
    b"lanczos5": _lanczos(5),
    b"gaussian": (1.5, _gaussian),
    b"box": (1, lambda x: np.where(x < 0.5, _F(1), np.where(x == 0.5, _F(0.5), _F(0)))),
    b"triangle": (1, lambda x: np.where(x < 1, 1 - x, _F(0))),
    b"keyscubic": (2, lambda x: np.where(x >= 2, _F(0), _cubic(x, _F(-0.5)))),
    b"mitchellcubic": (2, _mitchell),
}
"""Of each kernel its radius, and its weight by distance; source: sampling_kernels.h."""


@op("ScaleAndTranslate")
def scale_and_translate(node, x, size, scale, translation):
    """Compute y = Σₖ wₖ x[cellₖ] over the cells around each centre, w a kernel of their distance.

    With antialias the kernel is widened where the image shrinks.
    VJP: dx = Σ wₖ dy at cellₖ, summed over y.
    """
    radius, kernel = _KERNELS[node.attribute("kernel_type")]

    def taps(cells, count, scale, shift):
        inverse = _F(1) / _F(scale)
        wide = max(inverse, _F(1)) if node.attribute("antialias") else _F(1)
        centre = (np.arange(count, dtype=_F) + _F(0.5)) * inverse - inverse * _F(shift)
        first = np.clip(np.ceil(centre - radius * wide - _F(0.5)), 0, cells - 1)
        last = np.clip(np.floor(centre + radius * wide - _F(0.5)), 0, cells - 1)
        span = min(2 * math.ceil(radius * wide) + 1, cells)
        places = first + np.arange(span, dtype=_F)[:, None]
        distance = np.abs((places + _F(0.5) - centre) * (_F(1) / wide))
        seen = (places <= last) & (centre >= 0) & (centre <= cells)
        weights = np.where(seen, kernel(distance), _F(0))
        total = functools.reduce(np.add, weights)
        large = np.abs(total) >= 1000 * np.finfo(_F).tiny
        weights = weights * np.where(large, _F(1) / np.where(large, total, _F(1)), _F(1))
        return np.minimum(places, cells - 1).astype(int), node.array(weights)

    return _resized(node, x, size, taps, node.numbers(scale), node.numbers(translation))
