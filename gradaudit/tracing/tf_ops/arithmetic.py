"""Ops of two or more tensors that are broadcast, elementwise: sums, products, powers, clipping."""

import functools
import operator

import numpy as np

from gradaudit.numerics import chained, divided
from gradaudit.rules.primitives import arithmetic
from gradaudit.rules.primitives.broadcasting import unbroadcast
from gradaudit.tracing.tf_ops.complex_numbers import Complex, multiplied
from gradaudit.tracing.tf_ops.table import op


def _bind(kind, f):
    @op(kind)
    def apply(node, a, b):
        if isinstance(a, Complex):
            return multiplied(a, b) if kind == "Mul" else f(a, b)
        if kind == "Pow" and node.wanted[1]:
            numbers = np.broadcast_arrays(node.numbers(a), node.numbers(b))
            node.misleads("by the exponent where the base is below 0", numbers[0] < 0)
            node.misleads("by the exponent at 0 to the power 0", np.all(np.equal(numbers, 0), 0))
        first, second = node.number(0, a), node.number(1, b)
        if second is not None:
            b = second
        elif first is not None:
            a = first
        return f(a, b, tuple(node.wanted))

    apply.__doc__ = (
        f"Compute y = {f.formula}, elementwise.\n\n"
        f"VJP: {f.cotangents}; each summed over the axes of broadcasting."
    )


for _kind, _function in {
    "Add": arithmetic.ADD,
    "AddV2": arithmetic.ADD,
    "Sub": arithmetic.SUBTRACT,
    "Mul": arithmetic.MULTIPLY,
    "RealDiv": arithmetic.DIVIDE,
    "Div": arithmetic.DIVIDE,
    "Pow": arithmetic.POWER,
    "Maximum": arithmetic.MAXIMUM,
    "Minimum": arithmetic.MINIMUM,
}.items():
    _bind(_kind, _function)


@op("AddN")
def add_n(node, *xs):
    """Compute y = Σᵢ xᵢ; dxᵢ = dy."""
    return functools.reduce(operator.add, xs), lambda dy: (dy,) * len(xs)


@op("BiasAdd", "BiasAddV1")
def bias_add(node, x, bias):
    """Compute y = x + bias along the channels; dx = dy, dbias = Σ dy over the other axes."""
    first = node.op.attributes.get("data_format") == b"NCHW"
    apart = bias.reshape([-1] + [1] * (x.ndim - 2)) if first else bias

    def vjp(dy):
        rows = np.moveaxis(dy, 1, -1) if first else dy
        return dy, rows.reshape(-1, rows.shape[-1]).sum(axis=0)

    return x + apart, vjp


@op("BiasAddGrad")
def bias_add_grad(node, g):
    """Compute y = Σ g over all axes but that of the channels; dg = dy, broadcast."""
    axis = 1 if node.op.attributes.get("data_format") == b"NCHW" else g.ndim - 1
    apart = [-1 if i == axis else 1 for i in range(g.ndim)]
    rows = np.moveaxis(g, axis, -1)
    y = rows.reshape(-1, rows.shape[-1]).sum(axis=0)
    return y, lambda dy: np.broadcast_to(dy.reshape(apart), g.shape)


@op("SquaredDifference")
def squared_difference(node, a, b):
    """Compute y = (a − b)²; da = 2 (a − b) dy, db = −da, summed over the axes of broadcasting."""
    difference = a - b

    def vjp(dy):
        d = chained(dy, 2 * difference)
        return unbroadcast(d, a.shape), unbroadcast(-d, b.shape)

    return np.square(difference), vjp


@op("DivNoNan")
def div_no_nan(node, a, b):
    """Compute y = a / b, and 0 where b = 0; da = dy / b, db = −y dy / b, and 0 where b = 0.

    At b = 0 it jumps unless a = 0, too, and has no derivative by b that TensorFlow's 0 could miss.
    """
    is_zero = node.numbers(b) == 0
    safe = np.where(is_zero, 1.0, b)
    quotient = a / safe

    def vjp(dy):
        da = np.where(is_zero, 0.0, dy / safe)
        return unbroadcast(da, a.shape), unbroadcast(-chained(da, quotient), b.shape)

    return np.where(is_zero, 0.0, quotient), vjp


@op("MulNoNan")
def mul_no_nan(node, a, b):
    """Compute y = a b, and 0 where b = 0; da = b dy, and 0 where b = 0; db = a dy."""
    is_zero = node.numbers(b) == 0

    def vjp(dy):
        da = np.where(is_zero, 0.0, chained(dy, b))
        return unbroadcast(da, a.shape), unbroadcast(chained(dy, a), b.shape)

    return np.where(is_zero, 0.0, a * b), vjp


def _product_without_nan(kind, formula, slope, f, df):
    """Register z = x f(y), and 0 where x = 0; df: f′ from its argument.

    z is linear in x, so that dx = f(y) dz at x = 0, too, where TensorFlow has 0.
    """

    @op(kind)
    def apply(node, x, y):
        factor, is_zero = f(y), node.numbers(x) == 0
        if node.wanted[0]:
            node.misleads("by x where x is 0", is_zero & (node.numbers(factor) != 0))
        left_out = is_zero & ~np.isfinite(node.numbers(factor))

        def vjp(d):
            safe = np.where(left_out, 1.0, y)
            dx, dy = chained(d, factor), np.where(left_out, 0.0, chained(d * x, df(safe)))
            return unbroadcast(dx, x.shape), unbroadcast(dy, y.shape)

        return np.where(left_out, 0.0, x * np.where(left_out, 1.0, factor)), vjp

    apply.__doc__ = (
        f"Compute z = x {formula}, and 0 where x = 0.\n\n"
        f"VJP: dx = {formula} dz, dy = x {slope} dz, and 0 where x = 0."
    )


_product_without_nan("Xlogy", "log(y)", "(1 / y)", np.log, lambda y: 1 / y)
_product_without_nan("Xlog1py", "log(1 + y)", "(1 / (1 + y))", np.log1p, lambda y: 1 / (1 + y))
_product_without_nan("Xdivy", "(1 / y)", "(−1 / y²)", lambda y: 1 / y, lambda y: -1 / np.square(y))


@op("ClipByValue")
def clip_by_value(node, x, low, high):
    """Compute y = min(max(x, low), high).

    VJP: dx = dy where low ≤ x ≤ high, dlow = dy where x < low, dhigh = dy where x > high, 0
    elsewhere; each summed over the axes of broadcasting.
    """
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
    """Compute a = the angle of (x, y): atan(y / x), or ±π/2 − atan(x / y) where |y| > |x|.

    The first is turned by π where x < 0; it is 0 at the origin.
    VJP: dy = x da / (x² + y²), dx = −y da / (x² + y²).
    """
    squares = np.square(x) + np.square(y)
    across, up = np.broadcast_arrays(node.numbers(x), node.numbers(y))
    is_steep = np.abs(up) > np.abs(across)
    over, under = np.where(is_steep, x, y), np.where(is_steep, y, x)
    angle = np.arctan(over / np.where((across == 0) & (up == 0), 1.0, under))
    turned = np.where(is_steep, np.pi / 2, np.where(np.signbit(across), np.pi, 0.0))

    def vjp(d):
        d = divided(d, squares)
        return unbroadcast(d * x, y.shape), unbroadcast(-(d * y), x.shape)

    return np.where(is_steep, -angle, angle) + node.array(np.copysign(turned, up)), vjp


@op("FloorMod")
def floor_mod(node, a, b):
    """Compute y = a − ⌊a / b⌋ b; da = dy, db = −⌊a / b⌋ dy."""
    quotient = node.array(np.floor_divide(node.numbers(a), node.numbers(b)))

    def vjp(dy):
        return unbroadcast(dy, a.shape), unbroadcast(-chained(dy, quotient), b.shape)

    return a - quotient * b, vjp
