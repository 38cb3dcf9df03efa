"""Images in other colour spaces."""

import numpy as np

from gradaudit.tracing.tf_ops.table import op


@op("RGBToHSV")
def rgb_to_hsv(node, x):
    """Compute v = max x, s = (v − min x) / v, h = (the others' difference / (v − min x) + k) / 6.

    k is 0 where red is the largest, 2 where green is, 4 where blue is, and h is taken modulo 1.
    VJP: with c = v − min x and n the difference, dc = ds / v − n dh / (6 c²), dn = dh / (6 c),
    dmax = dv − s ds / v + dc, dmin = −dc. Of equal channels the first is the largest. TensorFlow
    has no dmin of s where min x = 0.
    """
    numbers = node.numbers(x)
    places = np.arange(3)
    is_largest = np.argmax(numbers, -1)[..., None] == places
    is_smallest = 2 - np.argmin(numbers[..., ::-1], -1)[..., None] == places
    v, low = x.max(axis=-1), -(-x).max(axis=-1)
    c = v - low
    is_grey, is_black = node.numbers(c) == 0, node.numbers(v) == 0
    node.misleads("where the smallest channel is 0", (node.numbers(low) == 0) & ~is_black)
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
    """Compute y = v (1 − s + s f(h)), f of each channel a slope between 0 and 1 along the hue.

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
