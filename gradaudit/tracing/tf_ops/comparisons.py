"""Comparisons, the logic of truth values, and choices by them.

A comparison of arrays that carry rounding errors is a Decision: it knows where rounding may turn
it, and `np.where` of it says so on.
"""

import functools

import numpy as np

from gradaudit.numerics import Decision
from gradaudit.rules.primitives import selection
from gradaudit.tracing.tf_ops.complex_numbers import Complex
from gradaudit.tracing.tf_ops.table import op


def _comparison(kind, sign, compare):
    @op(kind)
    def apply(node, a, b):
        return compare(a, b), None

    apply.__doc__ = f"Compute y = (a {sign} b), elementwise. No gradient passes."


for _kind, _sign, _compare in (
    ("Greater", ">", np.greater),
    ("GreaterEqual", "≥", np.greater_equal),
    ("Less", "<", np.less),
    ("LessEqual", "≤", np.less_equal),
    ("Equal", "=", np.equal),
    ("NotEqual", "≠", np.not_equal),
):
    _comparison(_kind, _sign, _compare)


@op("LogicalAnd")
def logical_and(node, a, b):
    """Compute y = a ∧ b. No gradient passes."""
    return (a & b if isinstance(a, Decision) else b & a), None


@op("LogicalOr")
def logical_or(node, a, b):
    """Compute y = a ∨ b. No gradient passes."""
    return (a | b if isinstance(a, Decision) else b | a), None


@op("LogicalNot")
def logical_not(node, a):
    """Compute y = ¬a. No gradient passes."""
    return ~a, None


@op("Any", "All")
def quantifier(node, x, axes):
    """Compute y = whether any element of x holds over axes, or all do. No gradient passes.

    x is a Decision here. y is doubtful where an element in doubt decides.
    """
    reduce = functools.partial(
        np.any if node.op.kind == "Any" else np.all,
        axis=tuple(np.atleast_1d(axes).tolist()),
        keepdims=node.attribute("keep_dims"),
    )
    value = reduce(x.value)
    surely, possibly = reduce(x.value & ~x.doubtful), reduce(x.value | x.doubtful)
    return Decision(value, surely != possibly, x.precision), None


@op("Select", "SelectV2")
def select(node, condition, a, b):
    """Compute y = a where the condition holds, b elsewhere; of a vector, Select takes rows.

    VJP: da = dy where the condition holds, db = dy elsewhere, 0 otherwise; each summed over the
    axes of broadcasting.
    """
    if node.op.kind == "Select" and condition.ndim < a.ndim:
        condition = condition.reshape(-1, *[1] * (a.ndim - 1))
    if isinstance(a, Complex):
        re, re_vjp = selection.where(condition, a.re, b.re)
        im, im_vjp = selection.where(condition, a.im, b.im)
        return Complex(re, im), lambda dy: (
            None,
            *map(Complex, re_vjp(dy.re), im_vjp(dy.im)),
        )
    y, vjp = selection.where(condition, a, b)
    return y, lambda dy: (None, *vjp(dy))
