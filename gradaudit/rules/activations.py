"""Every activation of keras.activations: y = f(z), and dz from (z, y, dy).

An elementwise one is one entry: its function, its VJP, the formula, and the points at which the
derivative jumps. Where a derivative jumps, the entry gives the side that TensorFlow takes.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
from keras import activations
from scipy import special

from gradaudit.numerics.arithmetic import Array
from gradaudit.rules.primitives.clip import clipped
from gradaudit.rules.primitives.log_softmax import log_softmax as log_p_and_p
from gradaudit.rules.registry import Case, rule

_SOURCE = "keras/src/activations/activations.py"
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def _elementwise(
    activation: Callable,
    formula: str,
    dz: str,
    f: Callable[..., Array],
    vjp: Callable[..., Array],
    kinks: tuple[float, ...] = (),
    options: tuple[dict, ...] = ({},),
) -> None:
    def apply(call, z):
        y = f(z, **call.options)
        return y, lambda dy: vjp(z, y, dy, **call.options)

    by_options = ", as the options of the cases make them" if kinks and len(options) > 1 else ""
    apply.__name__ = activation.__name__
    apply.__doc__ = (
        f"Apply y = {formula}, elementwise.\n\n"
        "Shapes: z, y, dy and dz alike.\n"
        f"VJP: dz = {dz}.\n"
        f"Kinks: {', '.join(map(str, kinks)) or 'none'}{by_options}."
    )
    cases = [
        Case(
            ",".join(f"{key}={value}" for key, value in chosen.items()) or "default",
            functools.partial(functools.partial, activation, **chosen),
            (3, 5),
            kinks,
        )
        for chosen in options
    ]
    rule(activation, cases=cases, source=_SOURCE)(apply)


def _held(number: float) -> float:
    """Return a constant as TensorFlow holds it, in whatever precision it computes: in float32."""
    return float(np.float32(number))


def _softplus(z):
    return np.maximum(z, 0.0) + np.log1p(np.exp(-np.abs(z)))


def _hard_sigmoid(z):
    return np.clip(z + 3.0, 0.0, 6.0) / 6.0


def _relu(z, negative_slope=0.0, max_value=None, threshold=0.0):
    y = np.where(z > threshold, z, 0.0)
    if max_value is not None:
        y = np.clip(y, 0.0, max_value)
    if not negative_slope:
        return y
    slope = _held(negative_slope) if max_value is None and not threshold else negative_slope
    return y - slope * np.maximum(threshold - z, 0.0)


def _relu_vjp(z, y, dy, negative_slope=0.0, max_value=None, threshold=0.0):
    dz = np.where(z > threshold, dy, 0.0)
    if max_value is not None:
        relu6 = max_value == 6 and not threshold  # TensorFlow's Relu6 is flat at 6, its clip is not
        dz = np.where(z < max_value if relu6 else z <= max_value, dz, 0.0)
    if not negative_slope:
        return dz
    leaky = (
        max_value is None and not threshold
    )  # LeakyRelu takes the slope at 0, -relu(-z) does not
    slope = _held(negative_slope) if leaky else negative_slope
    return dz + np.where(z <= 0.0 if leaky else z < threshold, slope * dy, 0.0)


_ROOT_HALF, _CUBIC = _held(math.sqrt(0.5)), _held(0.044715)


def _gelu_inner(z):
    return 0.7978845608028654 * (z + _CUBIC * np.power(z, 3))  # sqrt(2/π), as TensorFlow writes it


def _gelu(z, approximate=False):
    if approximate:
        return 0.5 * z * (1 + np.tanh(_gelu_inner(z)))
    return 0.5 * z * (1 + special.erf(z * _ROOT_HALF))


def _gelu_vjp(z, y, dy, approximate=False):
    if approximate:
        t = np.tanh(_gelu_inner(z))
        slope = 0.7978845608028654 * (1 + 3 * _CUBIC * np.square(z))
        return dy * (0.5 * (1 + t) + 0.5 * z * (1 - np.square(t)) * slope)
    density = np.exp(-np.square(z * _ROOT_HALF)) * (_ROOT_HALF / math.sqrt(math.pi))
    return dy * (0.5 * (1 + special.erf(z * _ROOT_HALF)) + z * density)


def _silu_vjp(z, y, dy):
    s = special.expit(z)
    return dy * s * (1 + z * (1 - s))


def _mish_vjp(z, y, dy):
    t = np.tanh(_softplus(z))
    return dy * (t + z * (1 - np.square(t)) * special.expit(z))


def _hard_silu_vjp(z, y, dy):
    return dy * _hard_sigmoid(z) + np.where((z > -3.0) & (z < 3.0), dy * z / 6.0, 0.0)


_elementwise(activations.linear, "z", "dy", lambda z: z, lambda z, y, dy: dy)
_elementwise(
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
)
_elementwise(
    activations.leaky_relu,
    "z where z > 0, negative_slope · z elsewhere",
    "dy where z > 0, negative_slope · dy elsewhere",
    lambda z, negative_slope=0.2: np.where(z > 0, z, _held(negative_slope) * z),
    lambda z, y, dy, negative_slope=0.2: np.where(z > 0, dy, _held(negative_slope) * dy),
    kinks=(0.0,),
    options=({}, {"negative_slope": 0.3}),
)
_elementwise(
    activations.relu6,
    "min(max(z, 0), 6)",
    "dy where 0 < z < 6, 0 elsewhere",
    lambda z: np.clip(z, 0.0, 6.0),
    lambda z, y, dy: np.where((z > 0) & (z < 6), dy, 0.0),
    kinks=(0.0, 6.0),
)
# exp(z) − 1 and y + alpha, not expm1(z) and alpha exp(z): as TensorFlow's Elu and EluGrad have it,
# with their cancellation.
_elementwise(
    activations.elu,
    "z where z > 0, alpha (exp(z) − 1) elsewhere",
    "dy where z > 0, (y + alpha) dy elsewhere",
    lambda z, alpha=1.0: np.where(z > 0, z, alpha * (np.exp(np.minimum(z, 0.0)) - 1)),
    lambda z, y, dy, alpha=1.0: np.where(z > 0, dy, dy * (y + alpha)),
    kinks=(0.0,),
    options=({}, {"alpha": 0.5}),
)
_elementwise(
    activations.selu,
    "scale · z where z ≥ 0, scale · alpha (exp(z) − 1) elsewhere",
    "scale · dy where z ≥ 0, (y + scale · alpha) dy elsewhere",
    lambda z: SELU_SCALE * np.where(z > 0, z, SELU_ALPHA * (np.exp(np.minimum(z, 0.0)) - 1)),
    lambda z, y, dy: np.where(z < 0, dy * (y + SELU_SCALE * SELU_ALPHA), SELU_SCALE * dy),
    kinks=(0.0,),
)
# celu is smooth at 0 for alpha of any size. Keras's tape gives 2 there, because the gradients of
# maximum(z, 0) and minimum(z, 0) both take the tie for their own: this rule does not follow it.
_elementwise(
    activations.celu,
    "max(z, 0) + alpha (exp(min(z, 0) / alpha) − 1)",
    "dy where z > 0, exp(z / alpha) dy elsewhere",
    lambda z, alpha=1.0: np.maximum(z, 0.0) + alpha * np.expm1(np.minimum(z, 0.0) / alpha),
    lambda z, y, dy, alpha=1.0: np.where(z > 0, dy, dy * np.exp(np.minimum(z, 0.0) / alpha)),
    options=({}, {"alpha": 0.5}),
)
_elementwise(
    activations.softplus,
    "log(1 + exp(z))",
    "σ(z) dy",
    _softplus,
    lambda z, y, dy: dy * special.expit(z),
)
_elementwise(
    activations.softsign,
    "z / (1 + |z|)",
    "dy / (1 + |z|)²",
    lambda z: z / (1 + np.abs(z)),
    lambda z, y, dy: dy / np.square(1 + np.abs(z)),
)
_elementwise(
    activations.squareplus,
    "(z + sqrt(z² + b)) / 2",
    "(1 + z / sqrt(z² + b)) dy / 2",
    lambda z, b=4: (z + np.sqrt(np.square(z) + b)) / 2,
    lambda z, y, dy, b=4: dy * (1 + z / np.sqrt(np.square(z) + b)) / 2,
    options=({}, {"b": 2}),
)
_elementwise(
    activations.soft_shrink,
    "z − threshold above threshold, z + threshold below −threshold, 0 between",
    "dy where |z| > threshold, 0 elsewhere",
    lambda z, threshold=0.5: np.where(
        z > threshold, z - threshold, np.where(z < -threshold, z + threshold, 0.0)
    ),
    lambda z, y, dy, threshold=0.5: np.where((z > threshold) | (z < -threshold), dy, 0.0),
    kinks=(-0.5, 0.5),
)
_elementwise(
    activations.hard_shrink,
    "z where |z| > threshold, 0 elsewhere",
    "dy where |z| > threshold, 0 elsewhere",
    lambda z, threshold=0.5: np.where(np.abs(z) > threshold, z, 0.0),
    lambda z, y, dy, threshold=0.5: np.where(np.abs(z) > threshold, dy, 0.0),
    kinks=(-0.5, 0.5),
)
_elementwise(
    activations.sparse_plus,
    "0 up to −1, (z + 1)²/4 between −1 and 1, z from 1 on",
    "0 up to −1, (z + 1) dy / 2 between −1 and 1, dy from 1 on",
    lambda z: np.where(z <= -1, 0.0, np.where(z < 1, np.square(z + 1) / 4, z)),
    lambda z, y, dy: np.where(z <= -1, 0.0, np.where(z < 1, dy * (z + 1) / 2, dy)),
    kinks=(-1.0, 1.0),
)
_elementwise(
    activations.sparse_sigmoid,
    "0 up to −1, (z + 1)/2 between −1 and 1, 1 from 1 on",
    "dy / 2 where −1 < z < 1, 0 elsewhere",
    lambda z: np.where(z <= -1, 0.0, np.where(z >= 1, 1.0, 0.5 * (z + 1))),
    lambda z, y, dy: np.where((z > -1) & (z < 1), 0.5 * dy, 0.0),
    kinks=(-1.0, 1.0),
)
_elementwise(
    activations.silu,
    "z / (1 + exp(−z))",
    "s (1 + z (1 − s)) dy with s = σ(z)",
    lambda z: z * special.expit(z),
    _silu_vjp,
)
_elementwise(
    activations.gelu,
    "z Φ(z), Φ the normal distribution function, or its tanh approximation",
    "(Φ(z) + z φ(z)) dy, φ the normal density, or that of the approximation",
    _gelu,
    _gelu_vjp,
    options=({}, {"approximate": True}),
)
_elementwise(
    activations.tanh, "tanh z", "(1 − y²) dy", np.tanh, lambda z, y, dy: dy * (1 - np.square(y))
)
# 1 − (1 − t²) and not t²: the cancellation is TensorFlow's, and belongs in the rounding error.
_elementwise(
    activations.tanh_shrink,
    "z − tanh z",
    "tanh²(z) dy, written dy − (1 − tanh²(z)) dy",
    lambda z: z - np.tanh(z),
    lambda z, y, dy: dy - dy * (1 - np.square(np.tanh(z))),
)
_elementwise(
    activations.threshold,
    "z where z > threshold, default_value elsewhere",
    "dy where z > threshold, 0 elsewhere",
    lambda z, threshold, default_value: np.where(z > threshold, z, default_value),
    lambda z, y, dy, threshold, default_value: np.where(z > threshold, dy, 0.0),
    kinks=(0.5,),
    options=({"threshold": 0.5, "default_value": -1.0},),
)
_elementwise(
    activations.sigmoid,
    "1 / (1 + exp(−z))",
    "y (1 − y) dy",
    special.expit,
    lambda z, y, dy: dy * y * (1 - y),
)
_elementwise(activations.exponential, "exp z", "y dy", np.exp, lambda z, y, dy: dy * y)
_elementwise(
    activations.hard_sigmoid,
    "min(max(z + 3, 0), 6) / 6",
    "dy / 6 where −3 < z < 3, 0 elsewhere",
    _hard_sigmoid,
    lambda z, y, dy: np.where((z > -3.0) & (z < 3.0), dy / 6.0, 0.0),
    kinks=(-3.0, 3.0),
)
_elementwise(
    activations.log_sigmoid,
    "−log(1 + exp(−z))",
    "σ(−z) dy",
    lambda z: -_softplus(-z),
    lambda z, y, dy: dy * special.expit(-z),
)
_elementwise(
    activations.hard_silu,
    "z min(max(z + 3, 0), 6) / 6",
    "(min(max(z + 3, 0), 6) / 6 + z / 6 where −3 < z < 3) dy",
    lambda z: z * _hard_sigmoid(z),
    _hard_silu_vjp,
    kinks=(-3.0, 3.0),
)
_elementwise(
    activations.hard_tanh,
    "min(max(z, −1), 1)",
    "dy where −1 ≤ z ≤ 1, 0 elsewhere",
    lambda z: clipped(z, -1.0, 1.0)[0],
    lambda z, y, dy: clipped(z, -1.0, 1.0)[1](dy),
    kinks=(-1.0, 1.0),
)
_elementwise(
    activations.mish,
    "z tanh(log(1 + exp(z)))",
    "(t + z (1 − t²) σ(z)) dy with t = tanh(log(1 + exp(z)))",
    lambda z: z * np.tanh(_softplus(z)),
    _mish_vjp,
)


def _along_axis(activation: Callable, *axes: int | None) -> list[Case]:
    return [
        Case(f"axis={axis}", functools.partial(functools.partial, activation, axis=axis), (3, 4))
        for axis in axes
    ]


@rule(activations.softmax, cases=_along_axis(activations.softmax, -1, 1, 0), source=_SOURCE)
def softmax(call, z):
    """Apply y = exp(z) / Σ exp(z) along an axis.

    Shapes: z, y, dy and dz alike.
    VJP:    dz = y (dy − Σ y dy), as ∂yᵢ/∂zⱼ = yᵢ (δᵢⱼ − yⱼ).
    Kinks:  none.
    """
    axis = call.options.get("axis", -1)
    _, y = log_p_and_p(z, axis)
    return y, lambda dy: y * (dy - (y * dy).sum(axis=axis, keepdims=True))


@rule(activations.log_softmax, cases=_along_axis(activations.log_softmax, -1, 0), source=_SOURCE)
def log_softmax(call, z):
    """Apply y = z − log Σ exp(z) along an axis.

    Shapes: z, y, dy and dz alike.
    VJP:    dz = dy − exp(y) Σ dy.
    Kinks:  none.
    """
    axis = call.options.get("axis", -1)
    y, _ = log_p_and_p(z, axis)
    return y, lambda dy: dy - np.exp(y) * dy.sum(axis=axis, keepdims=True)


@rule(activations.glu, cases=_along_axis(activations.glu, -1, 1), source=_SOURCE)
def glu(call, z):
    """Apply y = a σ(b), where a and b are the two halves of z along an axis.

    Shapes: z and dz (..., 2 M, ...), y and dy (..., M, ...).
    VJP:    da = σ(b) dy; db = a σ(b) (1 − σ(b)) dy; dz = (da, db).
    Kinks:  none.
    """
    axis = call.options.get("axis", -1) % z.ndim
    half = z.shape[axis] // 2
    first = (slice(None),) * axis
    a, b = z[(*first, slice(None, half))], z[(*first, slice(half, None))]
    s = special.expit(b)
    return a * s, lambda dy: np.concatenate([s * dy, a * s * (1 - s) * dy], axis)


@rule(
    activations.sparsemax,
    cases=[
        *_along_axis(activations.sparsemax, -1, 0),
        Case("ties", lambda: activations.sparsemax, (4, 5), kinks=(0.0,), ties=True),
    ],
    source=_SOURCE,
)
def sparsemax(call, z):
    """Apply y = max(z − τ, 0), with τ = (Σₖ c₍ₖ₎ − 1) / K as Keras has it.

    With z₍₁₎ ≥ z₍₂₎ ≥ … and the cumulative sums c₍ₖ₎ = z₍₁₎ + … + z₍ₖ₎, the support is
    {k: k z₍ₖ₎ > c₍ₖ₎ − 1} and K its size. Sparsemax (Martins and Astudillo 2016, arXiv:1602.02068)
    has τ = (c₍K₎ − 1) / K. Keras 3.15 sums c over the support, so its y does not sum to 1: this
    rule follows what Keras computes.

    Shapes: z, y, dy and dz alike.
    VJP:    s = dy where z ≥ τ, 0 elsewhere. z₍ⱼ₎ is a part of c₍ⱼ₎ to c₍K₎, so dz₍ⱼ₎ = s₍ⱼ₎ −
            (K − j + 1)/K Σ s within the support, and s₍ⱼ₎ outside.
    Kinks:  z = τ; where an element enters or leaves the support, or two change places in the order:
            the first of equal ones stands first.
    """
    axis = call.options.get("axis", -1)
    z = np.swapaxes(z, axis, -1)
    ones, k = np.ones_like(z), np.arange(1, z.shape[-1] + 1, dtype=np.float32)
    ordered = np.flip(np.sort(z, -1), -1)
    cumulative = np.cumsum(ordered, -1)
    inside = ordered - (cumulative - 1.0) / k > 0
    size = np.where(inside, ones, 0.0).sum(axis=-1, keepdims=True)
    total = np.where(inside, cumulative, 0.0).sum(axis=-1, keepdims=True)
    tau = (total - 1.0) / size

    def vjp(dy):
        s = np.where(z - tau >= 0.0, np.swapaxes(dy, axis, -1), 0.0)
        own, other, place = np.expand_dims(z, -1), np.expand_dims(z, -2), np.arange(z.shape[-1])
        equal = getattr(own, "value", own) == getattr(other, "value", other)
        # What is equal to the last digit was made alike: no rounding parts it.
        before = ((other > own) & ~equal) | (equal & (place < place[:, None]))
        rank = np.where(before, np.expand_dims(ones, -2), 0.0).sum(axis=-1) + 1.0
        share = np.where(rank < size + 0.5, (size - rank + 1.0) / size, 0.0)
        return np.swapaxes(s - share * s.sum(axis=-1, keepdims=True), axis, -1)

    return np.swapaxes(np.maximum(z - tau, 0.0), axis, -1), vjp
