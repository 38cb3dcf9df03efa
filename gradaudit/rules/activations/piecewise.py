"""Activations made of pieces that are polynomials: their derivative jumps at kinks."""

import numpy as np
from keras import activations

from gradaudit.numerics import estimated, numbers
from gradaudit.rules.activations.elementwise import as_held, elementwise
from gradaudit.rules.primitives.clip import clipped


def _hard_sigmoid(z):
    return np.clip(z + 3.0, 0.0, 6.0) / 6.0


def _relu(z, negative_slope=0.0, max_value=None, threshold=0.0):
    y = np.where(z > threshold, z, 0.0)
    if max_value is not None:
        y = np.clip(y, 0.0, max_value)
    if not negative_slope:
        return y
    slope = as_held(negative_slope) if _is_leaky(max_value, threshold) else negative_slope
    return y - slope * np.maximum(threshold - z, 0.0)


def _is_leaky(max_value, threshold):
    return max_value is None and not threshold  # LeakyRelu has the slope at 0, -relu(-z) has not


def _relu_misled(z, negative_slope=0.0, max_value=None, threshold=0.0):
    """Return where the slope that TensorFlow takes is neither that before nor that behind."""
    between = 0 if threshold or _is_leaky(max_value, threshold) else negative_slope
    where = "where z is 0: it is 0, and the slopes are negative_slope before and 1 behind"
    return (z == 0) & (between > 0), where


def _relu_vjp(z, y, dy, negative_slope=0.0, max_value=None, threshold=0.0):
    dz = np.where(z > threshold, dy, 0.0)
    if max_value is not None:
        relu6 = max_value == 6 and not threshold  # TensorFlow's Relu6 is flat at 6, its clip is not
        dz = np.where(z < max_value if relu6 else z <= max_value, dz, 0.0)
    if not negative_slope:
        return dz
    leaky = _is_leaky(max_value, threshold)
    slope = as_held(negative_slope) if leaky else negative_slope
    if leaky or threshold:
        return dz + np.where(z < threshold if threshold else z <= 0.0, slope * dy, 0.0)
    dz = dz + np.where(z <= 0.0, slope * dy, 0.0)
    tied = numbers(z) == 0  # the framework has 0 there: see _relu_misled
    return estimated(dz, np.zeros(()), np.where(tied, np.abs(numbers(slope * dy)), 0.0))


def _hard_silu_vjp(z, y, dy):
    return dy * _hard_sigmoid(z) + np.where((z > -3.0) & (z < 3.0), dy * z / 6.0, 0.0)


elementwise(activations.linear, "z", "dy", lambda z: z, lambda z, y, dy: dy)
elementwise(
    activations.relu,
    "max(z, 0), or with its options: 0 up to threshold, at most max_value, "
    "minus negative_slope · max(threshold − z, 0)",
    "dy where the slope is 1, negative_slope · dy where it is that, 0 elsewhere",
    _relu,
    _relu_vjp,
    kinks=(0.0, 0.5, 1.5, 6.0),
    options=(
        {},
        {"negative_slope": 0.1},
        {"max_value": 6},
        {"max_value": 1.5},
        {"threshold": 0.5},
        {"negative_slope": 0.1, "max_value": 1.5, "threshold": 0.5},
    ),
    misled=_relu_misled,
)
elementwise(
    activations.leaky_relu,
    "z where z > 0, negative_slope · z elsewhere",
    "dy where z > 0, negative_slope · dy elsewhere",
    lambda z, negative_slope=0.2: np.where(z > 0, z, as_held(negative_slope) * z),
    lambda z, y, dy, negative_slope=0.2: np.where(z > 0, dy, as_held(negative_slope) * dy),
    kinks=(0.0,),
    options=({}, {"negative_slope": 0.3}),
)
elementwise(
    activations.relu6,
    "min(max(z, 0), 6)",
    "dy where 0 < z < 6, 0 elsewhere",
    lambda z: np.clip(z, 0.0, 6.0),
    lambda z, y, dy: np.where((z > 0) & (z < 6), dy, 0.0),
    kinks=(0.0, 6.0),
)
elementwise(
    activations.soft_shrink,
    "z − threshold above threshold, z + threshold below −threshold, 0 between",
    "dy where |z| > threshold, 0 elsewhere",
    lambda z, threshold=0.5: np.where(
        z > threshold, z - threshold, np.where(z < -threshold, z + threshold, 0.0)
    ),
    lambda z, y, dy, threshold=0.5: np.where((z > threshold) | (z < -threshold), dy, 0.0),
    kinks=(-0.5, 0.5),
)
elementwise(
    activations.hard_shrink,
    "z where |z| > threshold, 0 elsewhere",
    "dy where |z| > threshold, 0 elsewhere",
    lambda z, threshold=0.5: np.where(np.abs(z) > threshold, z, 0.0),
    lambda z, y, dy, threshold=0.5: np.where(np.abs(z) > threshold, dy, 0.0),
    kinks=(-0.5, 0.5),
)
elementwise(
    activations.sparse_plus,
    "0 up to −1, (z + 1)²/4 between −1 and 1, z from 1 on",
    "0 up to −1, (z + 1) dy / 2 between −1 and 1, dy from 1 on",
    lambda z: np.where(z <= -1, 0.0, np.where(z < 1, np.square(z + 1) / 4, z)),
    lambda z, y, dy: np.where(z <= -1, 0.0, np.where(z < 1, dy * (z + 1) / 2, dy)),
    kinks=(-1.0, 1.0),
)
elementwise(
    activations.sparse_sigmoid,
    "0 up to −1, (z + 1)/2 between −1 and 1, 1 from 1 on",
    "dy / 2 where −1 < z < 1, 0 elsewhere",
    lambda z: np.where(z <= -1, 0.0, np.where(z >= 1, 1.0, 0.5 * (z + 1))),
    lambda z, y, dy: np.where((z > -1) & (z < 1), 0.5 * dy, 0.0),
    kinks=(-1.0, 1.0),
)
elementwise(
    activations.threshold,
    "z where z > threshold, default_value elsewhere",
    "dy where z > threshold, 0 elsewhere",
    lambda z, threshold, default_value: np.where(z > threshold, z, default_value),
    lambda z, y, dy, threshold, default_value: np.where(z > threshold, dy, 0.0),
    kinks=(0.5,),
    options=({"threshold": 0.5, "default_value": -1.0},),
)
elementwise(
    activations.hard_sigmoid,
    "min(max(z + 3, 0), 6) / 6",
    "dy / 6 where −3 < z < 3, 0 elsewhere",
    _hard_sigmoid,
    lambda z, y, dy: np.where((z > -3.0) & (z < 3.0), dy / 6.0, 0.0),
    kinks=(-3.0, 3.0),
)
elementwise(
    activations.hard_silu,
    "z min(max(z + 3, 0), 6) / 6",
    "(min(max(z + 3, 0), 6) / 6 + z / 6 where −3 < z < 3) dy",
    lambda z: z * _hard_sigmoid(z),
    _hard_silu_vjp,
    kinks=(-3.0, 3.0),
)
elementwise(
    activations.hard_tanh,
    "min(max(z, −1), 1)",
    "dy where −1 ≤ z ≤ 1, 0 elsewhere",
    lambda z: clipped(z, -1.0, 1.0)[0],
    lambda z, y, dy: clipped(z, -1.0, 1.0)[1](dy),
    kinks=(-1.0, 1.0),
)
