"""Ops that TensorFlow's gradients of elementwise ops are made of.

They stand in a graph where a loss has a gradient within: y = g s(a), g the cotangent of an output,
a that output or the input it came from, s the slope. Second derivatives: dg = dy s, da = dy g s'.
"""

import numpy as np
from scipy import special

from gradaudit.rules.activations import SELU_ALPHA, SELU_SCALE
from gradaudit.tracing.tf_ops.table import op


def _slope(kind, slope, bend=None, given_first=True):
    """Register y = g s(a).

    slope, bend: (node, a) to s and s'; no bend where s' is 0. given_first: a stands before g.
    """

    @op(kind)
    def apply(node, *inputs):
        a, g = inputs if given_first else reversed(inputs)
        s = slope(node, a)

        def vjp(dy):
            da = None if bend is None else dy * g * bend(node, a)
            return (da, dy * s) if given_first else (dy * s, da)

        return g * s, vjp


def _where(node, holds, then, otherwise):
    return np.where(holds, node.array(np.full(holds.shape, then)), otherwise)


_slope("TanhGrad", lambda node, y: 1 - np.square(y), lambda node, y: -2 * y)
_slope("SigmoidGrad", lambda node, y: y * (1 - y), lambda node, y: 1 - 2 * y)
_slope("SqrtGrad", lambda node, y: 0.5 / y, lambda node, y: -0.5 / np.square(y))
_slope("RsqrtGrad", lambda node, y: -0.5 * (y * y * y), lambda node, y: -1.5 * np.square(y))
_slope("ReciprocalGrad", lambda node, y: -np.square(y), lambda node, y: -2 * y)
_slope("InvGrad", lambda node, y: -np.square(y), lambda node, y: -2 * y)
_slope("ReluGrad", lambda node, z: _where(node, z > 0, 1.0, 0.0), given_first=False)
_slope("Relu6Grad", lambda node, z: _where(node, (z > 0) & (z < 6), 1.0, 0.0), given_first=False)
_slope(
    "LeakyReluGrad",
    lambda node, z: _where(node, z > 0, 1.0, node.attribute("alpha")),
    given_first=False,
)
_slope(
    "EluGrad",
    lambda node, y: np.where(y < 0, y + 1, 1.0),
    lambda node, y: _where(node, y < 0, 1.0, 0.0),
    given_first=False,
)
_slope(
    "SeluGrad",
    lambda node, y: np.where(y < 0, y + SELU_SCALE * SELU_ALPHA, SELU_SCALE),
    lambda node, y: _where(node, y < 0, 1.0, 0.0),
    given_first=False,
)
_slope(
    "SoftplusGrad",
    lambda node, z: special.expit(z),
    lambda node, z: special.expit(z) * special.expit(-z),
    given_first=False,
)
