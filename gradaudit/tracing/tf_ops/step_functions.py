"""Ops whose derivative is 0 wherever they have one: rounding, signs, tests of numbers."""

import numpy as np

from gradaudit.tracing.tf_ops.table import op


def _of_numbers(kind, formula, function):
    """Register what is computed from bare numbers: it has no rounding error."""

    @op(kind)
    def apply(node, x):
        return function(node.numbers(x)), None

    apply.__doc__ = f"Compute y = {formula}, elementwise. No gradient passes: dy/dx = 0."


for _kind, _formula, _function in (
    ("IsFinite", "whether x is finite", np.isfinite),
    ("IsNan", "whether x is not a number", np.isnan),
    ("IsInf", "whether x is infinite", np.isinf),
):
    _of_numbers(_kind, _formula, _function)


def _step(kind, formula, function):
    @op(kind)
    def apply(node, x):
        return function(x), None

    apply.__doc__ = f"Compute y = {formula}, elementwise. No gradient passes: dy/dx = 0."


for _kind, _formula, _rounding in (
    ("Floor", "⌊x⌋", np.floor),
    ("Ceil", "⌈x⌉", np.ceil),
    ("Round", "x rounded, halves to even", np.round),
    ("Rint", "x rounded, halves to even", np.rint),
):
    _step(_kind, _formula, _rounding)


@op("FloorDiv")
def floor_div(node, a, b):
    """Compute y = ⌊a / b⌋. No gradient passes: the derivatives are 0."""
    return np.floor(a / b), None


@op("Sign")
def sign(node, x):
    """Compute y = sign(x), 0 at 0. No gradient passes: dy/dx = 0."""
    return np.sign(x), None
