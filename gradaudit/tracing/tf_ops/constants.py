"""Ops that fill a tensor with given values: one value, a range, one-hot rows."""

import numpy as np

from gradaudit.rules.primitives.broadcasting import broadcast
from gradaudit.rules.primitives.selection import where
from gradaudit.tracing.tf_ops.table import op
from gradaudit.tracing.tf_ops.tensor_list import TensorList


@op("Fill")
def fill(node, shape, x):
    """Compute y = x at all places of a shape; dx = Σ dy."""
    y, vjp = broadcast(x, tuple(shape.tolist()))
    return y, lambda dy: (None, vjp(dy))


@op("Empty", always=True)
def empty(node, shape):
    """Compute y = zeros of a shape. No gradient passes.

    Raises:
        UnsupportedModelError: the elements are left unset.
    """
    if not node.attribute("init"):
        raise node.unsupported("leaves its elements unset: what is in them is not known")
    return node.run.value(np.zeros(shape), node.op.dtypes[0]), None


@op("OnesLike")
def ones_like(node, x):
    """Compute y = ones of x's shape. No gradient passes: dy/dx = 0."""
    return np.ones_like(x), None


@op("ZerosLike")
def zeros_like(node, x):
    """Compute y = zeros of x's shape; of a list, one with no item set. No gradient passes."""
    return (x.unset() if isinstance(x, TensorList) else np.zeros_like(x)), None


@op("Range")
def arange(node, start, limit, delta):
    """Compute yᵢ = start + i delta, below limit; dstart = Σ dy, ddelta = Σ i dy, dlimit = 0.

    TensorFlow lets no gradient through.
    """
    count = len(np.arange(*[node.numbers(each).item() for each in (start, limit, delta)]))
    if node.wanted[0] or node.wanted[2]:
        node.misleads("by start and delta")
    i = node.array(np.arange(count, dtype=float))
    return start + i * delta, lambda dy: (dy.sum(), None, (i * dy).sum())


@op("OneHot")
def one_hot(node, indices, depth, on, off):
    """Compute yᵢₖ = on where indexᵢ = k, off elsewhere; don, doff = Σ dy over the places of each.

    Both values are numbers, and TensorFlow lets no gradient through to them.
    """
    axis, depth = node.attribute("axis"), int(depth)
    hot = np.expand_dims(indices, -1) == np.arange(depth)
    if any(node.wanted[2:]):
        node.misleads("by the two values")
    y, vjp = where(hot if axis == -1 else np.moveaxis(hot, -1, axis), on, off)
    return y, lambda dy: (None, None, *vjp(dy))
