"""Activations made of exponentials, roots and quotients; only elu and selu have a kink."""

import math

import numpy as np
from keras import activations
from scipy import special

from gradaudit.numerics import chained
from gradaudit.rules.activations.elementwise import as_held, elementwise

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805

_ROOT_HALF, _CUBIC = as_held(math.sqrt(0.5)), as_held(0.044715)
_GELU_SLOPE = 0.7978845608028654  # sqrt(2/π), as TensorFlow writes it


def _softplus(z):
    return np.maximum(z, 0.0) + np.log1p(np.exp(-np.abs(z)))


def _gelu_inner(z):
    return _GELU_SLOPE * (z + _CUBIC * np.power(z, 3))


def _gelu(z, approximate=False):
    if approximate:
        return 0.5 * z * (1 + np.tanh(_gelu_inner(z)))
    return 0.5 * z * (1 + special.erf(z * _ROOT_HALF))


def _gelu_vjp(z, y, dy, approximate=False):
    if approximate:
        t = np.tanh(_gelu_inner(z))
        slope = _GELU_SLOPE * (1 + 3 * _CUBIC * np.square(z))
        return dy * (0.5 * (1 + t) + 0.5 * z * (1 - np.square(t)) * slope)
    density = np.exp(-np.square(z * _ROOT_HALF)) * (_ROOT_HALF / math.sqrt(math.pi))
    return dy * (0.5 * (1 + special.erf(z * _ROOT_HALF)) + z * density)


def _silu_vjp(z, y, dy):
    s = special.expit(z)
    return dy * s * (1 + z * (1 - s))


def _mish_vjp(z, y, dy):
    t = np.tanh(_softplus(z))
    return dy * (t + z * (1 - np.square(t)) * special.expit(z))


# exp(z) − 1 and y + alpha, not expm1(z) and alpha exp(z): as TensorFlow's Elu and EluGrad have it,
# with their cancellation.
elementwise(
    activations.elu,
    "z where z > 0, alpha (exp(z) − 1) elsewhere",
    "dy where z > 0, (y + alpha) dy elsewhere",
    lambda z, alpha=1.0: np.where(z > 0, z, alpha * (np.exp(np.minimum(z, 0.0)) - 1)),
    lambda z, y, dy, alpha=1.0: np.where(z > 0, dy, dy * (y + alpha)),
    kinks=(0.0,),
    options=({}, {"alpha": 0.5}),
)
elementwise(
    activations.selu,
    "scale · z where z ≥ 0, scale · alpha (exp(z) − 1) elsewhere",
    "scale · dy where z ≥ 0, (y + scale · alpha) dy elsewhere",
    lambda z: SELU_SCALE * np.where(z > 0, z, SELU_ALPHA * (np.exp(np.minimum(z, 0.0)) - 1)),
    lambda z, y, dy: np.where(z < 0, dy * (y + SELU_SCALE * SELU_ALPHA), SELU_SCALE * dy),
    kinks=(0.0,),
)
# celu is smooth at 0 for alpha of any size.
elementwise(
    activations.celu,
    "max(z, 0) + alpha (exp(min(z, 0) / alpha) − 1)",
    "dy where z > 0, exp(z / alpha) dy elsewhere",
    lambda z, alpha=1.0: np.maximum(z, 0.0) + alpha * np.expm1(np.minimum(z, 0.0) / alpha),
    lambda z, y, dy, alpha=1.0: np.where(z > 0, dy, dy * np.exp(np.minimum(z, 0.0) / alpha)),
    options=({}, {"alpha": 0.5}),
    misled=lambda z, alpha=1.0: (
        z == 0,
        "where z is 0: it is 2, as maximum(z, 0) and minimum(z, 0) both take the tie",
    ),
)
elementwise(
    activations.softplus,
    "log(1 + exp(z))",
    "σ(z) dy",
    _softplus,
    lambda z, y, dy: dy * special.expit(z),
)
elementwise(
    activations.softsign,
    "z / (1 + |z|)",
    "dy / (1 + |z|)²",
    lambda z: z / (1 + np.abs(z)),
    lambda z, y, dy: dy / np.square(1 + np.abs(z)),
)
elementwise(
    activations.squareplus,
    "(z + sqrt(z² + b)) / 2",
    "(1 + z / sqrt(z² + b)) dy / 2",
    lambda z, b=4: (z + np.sqrt(np.square(z) + b)) / 2,
    lambda z, y, dy, b=4: dy * (1 + z / np.sqrt(np.square(z) + b)) / 2,
    options=({}, {"b": 2}),
)
elementwise(
    activations.silu,
    "z / (1 + exp(−z))",
    "s (1 + z (1 − s)) dy with s = σ(z)",
    lambda z: z * special.expit(z),
    _silu_vjp,
)
elementwise(
    activations.gelu,
    "z Φ(z), Φ the normal distribution function, or its tanh approximation",
    "(Φ(z) + z φ(z)) dy, φ the normal density, or that of the approximation",
    _gelu,
    _gelu_vjp,
    options=({}, {"approximate": True}),
)
elementwise(
    activations.tanh, "tanh z", "(1 − y²) dy", np.tanh, lambda z, y, dy: dy * (1 - np.square(y))
)
# 1 − (1 − t²) and not t²: the cancellation is TensorFlow's, and belongs in the rounding error.
elementwise(
    activations.tanh_shrink,
    "z − tanh z",
    "tanh²(z) dy, written dy − (1 − tanh²(z)) dy",
    lambda z: z - np.tanh(z),
    lambda z, y, dy: dy - dy * (1 - np.square(np.tanh(z))),
)
elementwise(
    activations.sigmoid,
    "1 / (1 + exp(−z))",
    "y (1 − y) dy",
    special.expit,
    lambda z, y, dy: dy * y * (1 - y),
)
elementwise(activations.exponential, "exp z", "y dy", np.exp, lambda z, y, dy: chained(dy, y))
elementwise(
    activations.log_sigmoid,
    "−log(1 + exp(−z))",
    "σ(−z) dy",
    lambda z: -_softplus(-z),
    lambda z, y, dy: dy * special.expit(-z),
)
elementwise(
    activations.mish,
    "z tanh(log(1 + exp(z)))",
    "(t + z (1 − t²) σ(z)) dy with t = tanh(log(1 + exp(z)))",
    lambda z: z * np.tanh(_softplus(z)),
    _mish_vjp,
)
