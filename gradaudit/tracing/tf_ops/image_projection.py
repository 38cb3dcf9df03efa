"""Images moved by a projection: weighted sums of the cells around each place.

TensorFlow computes coordinates in float32, and so do these entries. Source:
tensorflow/core/kernels/image/image_ops.h.
"""

import numpy as np

from gradaudit.numerics import scatter_add
from gradaudit.tracing.tf_ops.table import op


def _single(node, value):
    """Return constants in the dtype of the coordinates."""
    return node.run.arithmetic.array(value, "float32")


@op("ImageProjectiveTransformV2", "ImageProjectiveTransformV3", misled=True)
def projective_transform(node, x, transforms, size, fill=None):
    """Compute y(p, q) = x at ((t₀p + t₁q + t₂) / w, (t₃p + t₄q + t₅) / w), w = t₆p + t₇q + 1.

    VJP: dx = Σ dy times the weights of the four cells around; TensorFlow transforms dy by the
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
