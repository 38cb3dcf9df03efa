"""Ops that treat each element by itself, of one tensor or of several that are broadcast.

Those that Keras has, too, are derived by the rules of its activations and operations.
"""

import functools
import math
import operator

import numpy as np
from keras import activations
from keras.src.ops import math as more_operations
from keras.src.ops import numpy as operations  # not exported; keras.ops.log(x) makes one of Log
from scipy import special

from gradaudit.numerics import Decision
from gradaudit.rules.context import apply_activation
from gradaudit.rules.keras_ops import arithmetic, elementwise  # noqa: F401 - declare their rules
from gradaudit.rules.primitives.broadcasting import unbroadcast
from gradaudit.rules.registry import declared
from gradaudit.tracing.tf_ops.complex_numbers import Complex, added, multiplied
from gradaudit.tracing.tf_ops.table import op
from gradaudit.tracing.tf_ops.tensor_list import TensorList

_UNARY = {
    "Neg": operations.Negative,
    "Abs": operations.Absolute,
    "Square": operations.Square,
    "Sqrt": operations.Sqrt,
    "Rsqrt": more_operations.Rsqrt,
    "Reciprocal": operations.Reciprocal,
    "Inv": operations.Reciprocal,
    "Expm1": operations.Expm1,
    "Log": operations.Log,
    "Log1p": operations.Log1p,
}
_ACTIVATIONS = {
    "Exp": activations.exponential,
    "Tanh": activations.tanh,
    "Sigmoid": activations.sigmoid,
    "Softplus": activations.softplus,
    "Softsign": activations.softsign,
    "Relu": activations.relu,
    "Relu6": activations.relu6,
    "Elu": activations.elu,
    "Selu": activations.selu,
    "Softmax": activations.softmax,
    "LogSoftmax": activations.log_softmax,
}
_BINARY = {
    "Add": operations.Add,
    "AddV2": operations.Add,
    "Sub": operations.Subtract,
    "Mul": operations.Multiply,
    "RealDiv": operations.Divide,
    "Div": operations.Divide,
    "Pow": operations.Power,
    "Maximum": operations.Maximum,
    "Minimum": operations.Minimum,
}


def _by_operation(kind, operation):
    @op(kind)
    def apply(node, x):
        y, vjp = declared(operation).function(node, x)
        return y, lambda dy: vjp(dy)[0]


def _by_activation(kind, activation):
    @op(kind)
    def apply(node, z):
        return apply_activation(activation, z)


def _of_two(kind, operation):
    @op(kind)
    def apply(node, a, b):
        if isinstance(a, Complex):
            return multiplied(a, b) if kind == "Mul" else added(a, b, kind != "Sub")
        rule, numbers = declared(operation).function, [node.number(0, a), node.number(1, b)]
        if numbers[1] is not None:
            y, vjp = rule(node.of_rule(x2=numbers[1]), a)
            return y, lambda dy: (vjp(dy)[0], None)
        if numbers[0] is not None:
            y, vjp = rule(node.of_rule(x1=numbers[0]), b)
            return y, lambda dy: (None, vjp(dy)[0])
        y, vjp = rule(node, (a, b))
        return y, lambda dy: vjp(dy)[0]


for _kind, _target in _UNARY.items():
    _by_operation(_kind, _target)
for _kind, _target in _ACTIVATIONS.items():
    _by_activation(_kind, _target)
for _kind, _target in _BINARY.items():
    _of_two(_kind, _target)


@op("LeakyRelu")
def leaky_relu(node, z):
    slope = functools.partial(activations.leaky_relu, negative_slope=node.attribute("alpha"))
    return apply_activation(slope, z)


@op("AddN")
def add_n(node, *xs):
    return functools.reduce(operator.add, xs), lambda dy: (dy,) * len(xs)


@op("BiasAdd", "BiasAddV1")
def bias_add(node, x, bias):
    first = node.op.attributes.get("data_format") == b"NCHW"
    apart = bias.reshape([-1] + [1] * (x.ndim - 2)) if first else bias

    def vjp(dy):
        rows = np.moveaxis(dy, 1, -1) if first else dy
        return dy, rows.reshape(-1, rows.shape[-1]).sum(axis=0)

    return x + apart, vjp


@op("BiasAddGrad")
def bias_add_grad(node, g):
    """Apply y = Σ g over all axes but that of the channels."""
    axis = 1 if node.op.attributes.get("data_format") == b"NCHW" else g.ndim - 1
    apart = [-1 if i == axis else 1 for i in range(g.ndim)]
    rows = np.moveaxis(g, axis, -1)
    y = rows.reshape(-1, rows.shape[-1]).sum(axis=0)
    return y, lambda dy: np.broadcast_to(dy.reshape(apart), g.shape)


@op("SquaredDifference")
def squared_difference(node, a, b):
    difference = a - b

    def vjp(dy):
        d = dy * (2 * difference)
        return unbroadcast(d, a.shape), unbroadcast(-d, b.shape)

    return np.square(difference), vjp


@op("DivNoNan")
def div_no_nan(node, a, b):
    """Apply y = a / b, and 0 where b = 0."""
    is_zero = node.numbers(b) == 0
    safe = np.where(is_zero, 1.0, b)
    quotient = a / safe

    def vjp(dy):
        da = np.where(is_zero, 0.0, dy / safe)
        return unbroadcast(da, a.shape), unbroadcast(-(da * quotient), b.shape)

    return np.where(is_zero, 0.0, quotient), vjp


def _elementary(kind, f, vjp):
    """Register y = f(x), and dx from (x, y, dy)."""

    @op(kind)
    def apply(node, x):
        y = f(x)
        return y, lambda dy: vjp(x, y, dy)


_TWO_OVER_ROOT_PI = 2 / math.sqrt(math.pi)

for _kind, _f, _vjp in (
    ("Erf", special.erf, lambda x, y, dy: dy * (_TWO_OVER_ROOT_PI * np.exp(-np.square(x)))),
    ("Erfc", special.erfc, lambda x, y, dy: dy * (-_TWO_OVER_ROOT_PI * np.exp(-np.square(x)))),
    ("Sin", np.sin, lambda x, y, dy: dy * np.cos(x)),
    ("Cos", np.cos, lambda x, y, dy: -(dy * np.sin(x))),
    ("Tan", np.tan, lambda x, y, dy: dy / np.square(np.cos(x))),
    ("Asin", np.arcsin, lambda x, y, dy: dy / np.sqrt(1 - np.square(x))),
    ("Acos", np.arccos, lambda x, y, dy: -(dy / np.sqrt(1 - np.square(x)))),
    ("Atan", np.arctan, lambda x, y, dy: dy / (1 + np.square(x))),
    ("Sinh", np.sinh, lambda x, y, dy: dy * np.cosh(x)),
    ("Cosh", np.cosh, lambda x, y, dy: dy * np.sinh(x)),
    ("Asinh", np.arcsinh, lambda x, y, dy: dy / np.cosh(y)),
    ("Acosh", np.arccosh, lambda x, y, dy: dy / np.sinh(y)),
    ("Atanh", np.arctanh, lambda x, y, dy: dy / (1 - np.square(x))),
):
    _elementary(_kind, _f, _vjp)


@op("Select", "SelectV2")
def select(node, condition, a, b):
    """Apply y = a where the condition holds, and b elsewhere; of a vector Select takes rows."""
    if node.op.kind == "Select" and condition.ndim < a.ndim:
        condition = condition.reshape(-1, *[1] * (a.ndim - 1))
    if isinstance(a, Complex):
        re, re_vjp = select(node, condition, a.re, b.re)
        im, im_vjp = select(node, condition, a.im, b.im)

        def of_parts(dy):
            parts = zip(re_vjp(dy.re)[1:], im_vjp(dy.im)[1:], strict=True)
            return None, *(Complex(*part) for part in parts)

        return Complex(re, im), of_parts

    def vjp(dy):
        da, db = np.where(condition, dy, 0.0), np.where(condition, 0.0, dy)
        return None, unbroadcast(da, a.shape), unbroadcast(db, b.shape)

    return np.where(condition, a, b), vjp


@op("Cast")
def cast(node, x):
    source, target = node.attribute("SrcT"), node.attribute("DstT")
    if source.is_floating and target.is_complex:
        held, vjp = node.run.arithmetic.cast(x, target.real_dtype.name), node.run.arithmetic.cast
        return Complex(held, np.zeros_like(held)), lambda dy: vjp(dy.re, source.name)
    if source.is_complex:
        raise node.unsupported("takes a part of complex numbers: tf.math.real says which")
    if source.is_floating and target.is_floating:
        cast = node.run.arithmetic.cast
        return cast(x, target.name), lambda dy: cast(dy, source.name)
    if target.is_floating:  # of a comparison
        one = node.array(np.ones(x.value.shape))
        return np.where(x, one, 0.0), None
    return np.trunc(node.numbers(x)).astype(target.as_numpy_dtype), None


def _comparison(kind, compare):
    @op(kind)
    def apply(node, a, b):
        return compare(a, b), None


for _kind, _compare in {
    "Greater": np.greater,
    "GreaterEqual": np.greater_equal,
    "Less": np.less,
    "LessEqual": np.less_equal,
    "Equal": np.equal,
    "NotEqual": np.not_equal,
}.items():
    _comparison(_kind, _compare)


@op("LogicalAnd")
def logical_and(node, a, b):
    return (a & b if isinstance(a, Decision) else b & a), None


@op("LogicalOr")
def logical_or(node, a, b):
    return (a | b if isinstance(a, Decision) else b | a), None


@op("LogicalNot")
def logical_not(node, a):
    return ~a, None


def _of_numbers(kind, function):
    """Register what is taken of bare numbers: a derivative of 0, and no error but at a jump."""

    @op(kind)
    def apply(node, x):
        made = function(node.numbers(x))
        return (node.array(made) if made.dtype.kind == "f" else made), None


for _kind, _function in {
    "IsFinite": np.isfinite,
    "IsNan": np.isnan,
    "IsInf": np.isinf,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": np.round,
    "Rint": np.rint,
}.items():
    _of_numbers(_kind, _function)


def _times(kind, f, df):
    """Register y = x f(y), and 0 where x = 0; df: f′ from its argument."""

    @op(kind)
    def apply(node, x, y):
        is_zero = node.numbers(x) == 0
        safe = np.where(is_zero, 1.0, y)
        factor = f(safe)

        def vjp(d):
            dx, dy = np.where(is_zero, 0.0, d * factor), np.where(is_zero, 0.0, d * x * df(safe))
            return unbroadcast(dx, x.shape), unbroadcast(dy, y.shape)

        return np.where(is_zero, 0.0, x * factor), vjp


_times("Xlogy", np.log, lambda y: 1 / y)
_times("Xlog1py", np.log1p, lambda y: 1 / (1 + y))
_times("Xdivy", lambda y: 1 / y, lambda y: -1 / np.square(y))


@op("MulNoNan")
def mul_no_nan(node, a, b):
    """Apply y = a b, and 0 where b = 0."""
    is_zero = node.numbers(b) == 0

    def vjp(dy):
        da = np.where(is_zero, 0.0, dy * b)
        return unbroadcast(da, a.shape), unbroadcast(dy * a, b.shape)

    return np.where(is_zero, 0.0, a * b), vjp


@op("ClipByValue")
def clip_by_value(node, x, low, high):
    """Apply y = min(max(x, low), high); a bound takes dy where it is passed."""
    y = np.minimum(np.maximum(x, low), high)

    def vjp(dy):
        below, above = x < low, x > high
        dlow, dhigh = np.where(below, dy, 0.0), np.where(above, dy, 0.0)
        dx = np.where(below, 0.0, np.where(above, 0.0, dy))
        return (
            unbroadcast(dx, x.shape),
            unbroadcast(dlow, low.shape),
            unbroadcast(dhigh, high.shape),
        )

    return y, vjp


@op("Atan2")
def atan2(node, y, x):
    """Apply the angle of (x, y), by atan of a quotient: dy = x d / (x² + y²), dx = −y d / that."""
    squares = np.square(x) + np.square(y)
    quotient = np.arctan(y / x)
    turned = np.where(node.numbers(x) < 0, np.copysign(np.pi, node.numbers(y)), 0.0)

    def vjp(d):
        d = d / squares
        return unbroadcast(d * x, y.shape), unbroadcast(-(d * y), x.shape)

    return quotient + node.array(turned), vjp


@op("FloorMod")
def floor_mod(node, a, b):
    """Apply a − ⌊a / b⌋ b; TensorFlow's derivative by b is −⌊a / b⌋."""
    quotient = node.array(np.floor_divide(node.numbers(a), node.numbers(b)))

    def vjp(dy):
        return unbroadcast(dy, a.shape), unbroadcast(-(dy * quotient), b.shape)

    return a - quotient * b, vjp


@op("FloorDiv")
def floor_div(node, a, b):
    return node.array(np.floor_divide(node.numbers(a), node.numbers(b))), None


@op("Sign")
def sign(node, x):
    return np.sign(x), None


@op("OnesLike")
def ones_like(node, x):
    return np.ones_like(x), None


@op("ZerosLike")
def zeros_like(node, x):
    """Return zeros; of a list, one whose items were not set, which are read as zeros."""
    return (x.unset() if isinstance(x, TensorList) else np.zeros_like(x)), None
