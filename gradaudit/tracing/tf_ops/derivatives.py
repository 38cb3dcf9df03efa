"""Ops that TensorFlow's gradients of elementwise ops are made of.

A graph has them where a loss contains a gradient: y = g s(a), g the cotangent of an output, a that
output or the input it came from, s the slope. Second derivatives: dg = dy s, da = dy g s'.
"""

import numpy as np
from scipy import special

from gradaudit.numerics import chained
from gradaudit.rules.activations import SELU_ALPHA, SELU_SCALE
from gradaudit.tracing.tf_ops.table import op


def _slope(kind, formula, slope, bend=None, bend_formula="0", given_first=True):
    """Register y = g s(a).

    slope, bend: (node, a) to s and s'; no bend where s' is 0. given_first: a comes before g.
    """

    @op(kind)
    def apply(node, *inputs):
        a, g = inputs if given_first else reversed(inputs)
        s = slope(node, a)

        def vjp(dy):
            da = None if bend is None else chained(dy * g, bend(node, a))
            dg = chained(dy, s)
            return (da, dg) if given_first else (dg, da)

        return chained(g, s), vjp

    apply.__doc__ = (
        f"Compute y = g s, s = {formula}, elementwise.\n\n"
        f"VJP: dg = s dy, da = g s' dy, s' = {bend_formula}."
    )


def _where(node, holds, then, otherwise):
    return np.where(holds, node.array(np.full(holds.shape, then)), otherwise)


_slope("TanhGrad", "1 − a²", lambda node, y: 1 - np.square(y), lambda node, y: -2 * y, "−2 a")
_slope(
    "SigmoidGrad", "a (1 − a)", lambda node, y: y * (1 - y), lambda node, y: 1 - 2 * y, "1 − 2 a"
)
_slope(
    "SqrtGrad",
    "1 / (2 a)",
    lambda node, y: 0.5 / y,
    lambda node, y: -0.5 / np.square(y),
    "−1 / (2 a²)",
)
_slope(
    "RsqrtGrad",
    "−a³ / 2",
    lambda node, y: -0.5 * (y * y * y),
    lambda node, y: -1.5 * np.square(y),
    "−3 a² / 2",
)
for _kind in ("ReciprocalGrad", "InvGrad"):
    _slope(_kind, "−a²", lambda node, y: -np.square(y), lambda node, y: -2 * y, "−2 a")
_slope(
    "ReluGrad",
    "1 where a > 0, 0 elsewhere",
    lambda node, z: _where(node, z > 0, 1.0, 0.0),
    given_first=False,
)
_slope(
    "Relu6Grad",
    "1 where 0 < a < 6, 0 elsewhere",
    lambda node, z: _where(node, (z > 0) & (z < 6), 1.0, 0.0),
    given_first=False,
)
_slope(
    "LeakyReluGrad",
    "1 where a > 0, alpha elsewhere",
    lambda node, z: _where(node, z > 0, 1.0, node.attribute("alpha")),
    given_first=False,
)
_slope(
    "EluGrad",
    "a + 1 where a < 0, 1 elsewhere",
    lambda node, y: np.where(y < 0, y + 1, 1.0),
    lambda node, y: _where(node, y < 0, 1.0, 0.0),
    "1 where a < 0, 0 elsewhere",
    given_first=False,
)
_slope(
    "SeluGrad",
    "a + scale · alpha where a < 0, scale elsewhere",
    lambda node, y: np.where(y < 0, y + SELU_SCALE * SELU_ALPHA, SELU_SCALE),
    lambda node, y: _where(node, y < 0, 1.0, 0.0),
    "1 where a < 0, 0 elsewhere",
    given_first=False,
)
_slope(
    "SoftplusGrad",
    "σ(a)",
    lambda node, z: special.expit(z),
    lambda node, z: special.expit(z) * special.expit(-z),
    "σ(a) σ(−a)",
    given_first=False,
)
