"""Images: resized, moved by a projection, cut out, and in other colours.

All but the colours are weighted sums of cells. TensorFlow computes places and weights in float32,
and so they are here: they are numbers that the op's inputs decide, and no part of the derivation.
Source: tensorflow/core/kernels/image.
"""

import functools
import math

import numpy as np

from gradaudit.numerics import scatter_add
from gradaudit.tracing.tf_ops.shape import moving
from gradaudit.tracing.tf_ops.table import op

_F = np.float32


def _weighted(x, axis, places, weights):
    """Apply y = Σₖ weightsₖ x[placesₖ] along an axis; dx has dy weightsₖ at placesₖ.

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
    """Apply weighted sums along both spatial axes, in float32.

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
    for axis, count in enumerate(size.tolist(), start=1):
        cells, i = x.shape[axis], np.arange(count, dtype=_F)
        half = _F(0.5 if node.attribute("half_pixel_centers") else 0.0)
        at = (i + half) * _scale(node, cells, count)
        at = np.floor(at + 0.5) if node.attribute("align_corners") else np.floor(at)
        x = np.take(x, np.clip(at, 0, cells - 1).astype(int), axis)
    return x


@op("ResizeBilinear")
def resize_bilinear(node, x, size):
    """Apply y = (1 − t) x[below] + t x[above] along both axes."""

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
    """Apply Keys's kernel to four cells along both axes; weights beside the image are left out."""
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
    """Return a function in float32 to the last digit, as the C library has it and NumPy has not."""
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
    """Apply a kernel, widened where the image shrinks, to the cells around each centre."""
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


def _single(node, value):
    """Return constants in the dtype of the coordinates."""
    return node.run.arithmetic.array(value, "float32")


@op("ImageProjectiveTransformV2", "ImageProjectiveTransformV3", misled=True)
def projective_transform(node, x, transforms, size, fill=None):
    """Look up y at (p, q) in x at ((t₀p + t₁q + t₂) / w, (t₃p + t₄q + t₅) / w), w = t₆p + t₇q + 1.

    VJP: dx has dy times the weights of the four cells around; TensorFlow transforms dy by the
    inverse projection instead, which is not the derivative.
    """
    n, height, width, channels = x.shape
    t = np.broadcast_to(transforms, (n, 8))[..., None, None]
    q, p = (_single(node, each) for each in np.indices(size.tolist()))
    w = t[:, 6] * p + t[:, 7] * q + 1.0
    across, down = ((t[:, i] * p + t[:, i + 1] * q + t[:, i + 2]) / w for i in (0, 3))
    mode = node.op.attributes.get("fill_mode", b"CONSTANT").decode()
    columns, by_column = _between(node, _folded(node, across, width, mode))
    rows, by_row = _between(node, _folded(node, down, height, mode))
    cast = node.run.arithmetic.cast
    fill = node.array(0.0) if fill is None else fill
    flat, fill = (cast(each, "float32") for each in (x.reshape(-1, channels), fill))
    image, taps = np.arange(n)[:, None, None] * height * width, []
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        row, column = rows[i], columns[j]
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        place = image + np.clip(row, 0, height - 1) * width + np.clip(column, 0, width - 1)
        taps.append((i, j, place.astype(int), inside[..., None]))

    def seen(place, inside):
        cells = flat[place.reshape(-1)].reshape(*place.shape, channels)
        return np.where(inside, cells, fill)

    def mixed(values, parts):
        return parts[0](values[0]) + parts[1](values[1])

    found = [seen(place, inside) for *_, place, inside in taps]
    y = mixed([mixed(found[:2], by_column), mixed(found[2:], by_column)], by_row)

    def vjp(dy):
        dy = cast(dy, "float32")
        parts = [
            np.where(inside, by_column[j](by_row[i](dy)), 0.0).reshape(-1, channels)
            for i, j, _, inside in taps
        ]
        places = np.concatenate([place.reshape(-1) for *_, place, _ in taps])
        dx = scatter_add(np.concatenate(parts), places, len(flat)).reshape(x.shape)
        return cast(dx, node.dtype), *[None] * (len(node.op.inputs) - 1)

    return cast(y, node.dtype), vjp


def _between(node, at):
    """Return the two cells around each coordinate, and what weighs an array for each of the two."""
    below = np.floor(node.numbers(at))
    t = np.expand_dims(at - below, -1)
    if node.attribute("interpolation") == b"NEAREST":
        away_from_zero = np.expand_dims(below, -1) < 0  # where std::round takes halves
        nearer = (t < 0.5) | ((t <= 0.5) & away_from_zero)
        parts = (lambda v: np.where(nearer, v, 0.0)), (lambda v: np.where(nearer, 0.0, v))
    else:
        parts = (lambda v: v * (1.0 - t)), (lambda v: v * t)
    return (below, below + 1), parts


def _folded(node, at, cells, mode):
    """Return coordinates beyond the image as its fill mode has them; source: image_ops.h."""
    number = node.numbers(at)
    low, high = number < 0, number > cells - 1
    if mode == "CONSTANT":
        return at
    if mode == "WRAP" and cells > 1:
        return _wrapped(node, at, cells)
    if mode == "REFLECT" and cells > 1:
        twice = 2 * cells
        turned = number + np.where(low, twice, -twice) * np.trunc(np.abs(number) / twice)
        flips = np.where(low, turned >= -cells, turned >= cells)
        target = np.where(flips, np.where(low, 0, twice) - turned - 1, turned)
        target = np.where(low & ~flips, turned + twice, target)
        shift = _single(node, target - np.where(flips, -number, number))
        at = np.where(low | high, np.where(flips, -at, at) + shift, at)
    return _inside(node, at, cells)


def _wrapped(node, at, cells):
    """Return coordinates that begin again beyond the image: near a jump either side may be met."""
    number, turns = node.numbers(at), cells - 1
    beyond = at > turns * np.rint(number / turns)
    times = np.where(number < 0, np.trunc(-number / turns) + 1, 0.0)
    times -= np.where(number > turns, np.trunc(number / turns), 0.0)
    found = _inside(node, at + _single(node, cells * times), cells)
    moved = _single(node, np.where(node.numbers(beyond), 0.0, cells))
    return np.where(beyond, found + moved, found + (cells - moved))


def _inside(node, at, cells):
    number = node.numbers(at)
    return np.where(number < 0, 0.0, np.where(number > cells - 1, cells - 1.0, at))


@op("RGBToHSV")
def rgb_to_hsv(node, x):
    """Apply v = max x, s = (v − min x) / v, h = (the others' difference / (v − min x) + k) / 6.

    k is 0 where red is the largest, 2 where green is, 4 where blue is, and h is taken modulo 1.
    VJP: with c = v − min x and n the difference, dc = ds / v − n dh / (6 c²), dn = dh / (6 c),
    dmax = dv − s ds / v + dc, dmin = −dc. Of equal channels the first is the largest.
    """
    numbers = node.numbers(x)
    places = np.arange(3)
    is_largest = np.argmax(numbers, -1)[..., None] == places
    is_smallest = 2 - np.argmin(numbers[..., ::-1], -1)[..., None] == places
    v, low = x.max(axis=-1), -(-x).max(axis=-1)
    c = v - low
    is_grey, is_black = node.numbers(c) == 0, node.numbers(v) == 0
    width, height = np.where(is_grey, 1.0, c), np.where(is_black, 1.0, v)
    n = np.where(is_largest, np.roll(x, -1, -1) - np.roll(x, -2, -1), 0.0).sum(axis=-1)
    s = np.where(is_black, 0.0, c / height)
    h = np.where(is_grey, 0.0, n / (6 * width) + node.array(np.argmax(numbers, -1) / 3))
    y = np.stack([np.where(node.numbers(h) < 0, h + 1, h), s, v], -1)

    def vjp(dy):
        dh, ds, dv = dy[..., 0], dy[..., 1], dy[..., 2]
        dn = np.where(is_grey, 0.0, dh / (6 * width))
        dc = np.where(is_black, 0.0, ds / height) - dn * n / width
        dmax = dv - np.where(is_black, 0.0, s * ds / height) + dc
        largest, smallest = (np.expand_dims(d, -1) for d in (dmax, -dc))
        turned = np.where(is_largest, np.expand_dims(dn, -1), 0.0)
        return (
            np.where(is_largest, largest, 0.0)
            + np.where(is_smallest, smallest, 0.0)
            + (np.roll(turned, 1, -1) - np.roll(turned, 2, -1))
        )

    return y, vjp


@op("HSVToRGB", misled=True)
def hsv_to_rgb(node, x):
    """Apply y = v (1 − s + s f(h)), f of each channel a slope between 0 and 1 along the hue.

    TensorFlow lets no gradient through, though there is one: dv = y dy / v, ds = v (f − 1) dy,
    dh = v s f′ dy, added over the channels.
    """
    h, s, v = (np.expand_dims(x[..., i], -1) for i in range(3))
    from_middle = 6 * h - node.array([3.0, 2.0, 4.0])
    sign = node.array([1.0, -1.0, -1.0])
    slope = np.abs(from_middle) * sign + node.array([-1.0, 2.0, 2.0])
    f = np.minimum(np.maximum(slope, 0.0), 1.0)
    shade = (1 - s) + s * f

    def vjp(dy):
        inside = (slope > 0) & (slope < 1)
        df = 6 * np.sign(from_middle) * sign
        dh = np.where(inside, dy * v * s * df, 0.0)
        parts = [dh, dy * v * (f - 1), dy * shade]
        return np.stack([part.sum(axis=-1) for part in parts], -1)

    return shade * v, vjp
