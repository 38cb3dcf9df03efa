"""Ops that reduce axes: by the rules of Keras's operations, and what those do not have."""

import functools

import numpy as np
from keras.src.ops import numpy as operations  # not exported; keras.ops.sum(x) makes one of Sum

from gradaudit.numerics import Decision
from gradaudit.rules.keras_ops import reduction  # noqa: F401 - declares its rules
from gradaudit.rules.primitives.log_softmax import log_sum_exp
from gradaudit.rules.registry import declared
from gradaudit.tracing.tf_ops.table import op


def _by_operation(kind, operation):
    @op(kind)
    def apply(node, x, axes):
        axes = tuple(np.atleast_1d(axes).tolist())
        if not axes:
            return x, lambda dy: (dy, None)
        of_layer = operation(axis=axes, keepdims=node.attribute("keep_dims"))
        y, vjp = declared(operation).function(node.of_rule(of_layer), x)
        return y, lambda dy: (vjp(dy)[0], None)


for _kind, _operation in {
    "Sum": operations.Sum,
    "Mean": operations.Mean,
    "Max": operations.Max,
    "Min": operations.Min,
}.items():
    _by_operation(_kind, _operation)


@op("Any", "All")
def quantifier(node, x, axes):
    """Of a comparison: doubtful where an element in doubt decides."""
    reduce = functools.partial(
        np.any if node.op.kind == "Any" else np.all,
        axis=tuple(np.atleast_1d(axes).tolist()),
        keepdims=node.attribute("keep_dims"),
    )
    value = reduce(x.value)
    surely, possibly = reduce(x.value & ~x.doubtful), reduce(x.value | x.doubtful)
    return Decision(value, surely != possibly, x.precision), None


@op("Prod")
def product(node, x, axes):
    """Apply y = Π x over axes."""
    axes = sorted({axis % x.ndim for axis in np.atleast_1d(axes).tolist()})
    rest = [axis for axis in range(x.ndim) if axis not in axes]
    lead = [x.shape[axis] for axis in rest]
    y, rows_vjp = multiplied(np.transpose(x, (*rest, *axes)).reshape(*lead, -1))
    shape = y.shape
    if node.attribute("keep_dims"):
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))

    def vjp(dy):
        apart = rows_vjp(dy.reshape(lead)).reshape(*lead, *[x.shape[axis] for axis in axes])
        return np.transpose(apart, np.argsort((*rest, *axes))), None

    return y.reshape(shape), vjp


def multiplied(rows):
    """Return y = Π x along the last axis, and its VJP: dx = dy times the product of the others."""
    n, one = rows.shape[-1], np.ones_like(rows[..., 0])
    before, after = [one], [one]
    for i in range(n):
        before.append(before[-1] * rows[..., i])
        after.append(after[-1] * rows[..., n - 1 - i])

    def vjp(dy):
        return np.stack([dy * before[i] * after[n - 1 - i] for i in range(n)], -1)

    return before[-1], vjp


@op("Cumsum")
def cumsum(node, x, axis):
    """Apply yᵢ = Σ xⱼ over j ≤ i; dxⱼ = Σ dyᵢ over i ≥ j; exclusive: over the strict order."""
    axis = int(axis) % x.ndim

    def summed(z, back):
        z = np.flip(z, axis) if back else z
        total = np.cumsum(z, axis)
        if node.attribute("exclusive"):
            edge = [(1, 0) if i == axis else (0, 0) for i in range(z.ndim)]
            short = (slice(None),) * axis + (slice(None, -1),)
            total = np.pad(total[short], edge)
        return np.flip(total, axis) if back else total

    reverse = node.attribute("reverse")
    return summed(x, reverse), lambda dy: (summed(dy, not reverse), None)


@op("Cumprod")
def cumprod(node, x, axis):
    """Apply yᵢ = Π xⱼ over j ≤ i; dxⱼ = Σ dyᵢ times the product of the others, over i ≥ j."""
    axis, exclusive = int(axis) % x.ndim, node.attribute("exclusive")
    rows = np.moveaxis(x, axis, 0)
    rows = np.flip(rows, 0) if node.attribute("reverse") else rows
    n = len(rows)

    def products(skipped):
        """Return the products up to each place, without the factor at one of them."""
        found = [np.ones_like(rows[0])]
        for i in range(n):
            found.append(found[-1] if i == skipped else found[-1] * rows[i])
        return found[:-1] if exclusive else found[1:]

    def back(parts):
        y = np.stack(parts)
        return np.moveaxis(np.flip(y, 0) if node.attribute("reverse") else y, 0, axis)

    def vjp(dy):
        d = np.moveaxis(dy, axis, 0)
        d = np.flip(d, 0) if node.attribute("reverse") else d
        dx = []
        for j in range(n):
            others, first = products(j), j + 1 if exclusive else j
            terms = [d[i] * others[i] for i in range(first, n)]
            dx.append(np.stack(terms).sum(axis=0) if terms else np.zeros_like(rows[0]))
        return back(dx), None

    return back(products(None)), vjp


@op("EuclideanNorm")
def euclidean_norm(node, x, axes):
    """Apply y = √Σ x² over axes; dx = x dy / y."""
    axes = tuple(np.atleast_1d(axes).tolist())
    y = np.sqrt(np.square(x).sum(axis=axes, keepdims=True))
    shape = y.shape
    if not node.attribute("keep_dims"):
        dropped = {axis % x.ndim for axis in axes}
        shape = tuple(size for axis, size in enumerate(y.shape) if axis not in dropped)
    return y.reshape(shape), lambda dy: (x * (dy.reshape(y.shape) / y), None)


@op("L2Loss")
def l2_loss(node, x):
    return np.square(x).sum() / 2, lambda dy: dy * x


@op("CumulativeLogsumexp")
def cumulative_log_sum_exp(node, x, axis):
    """Apply yᵢ = log Σ exp xⱼ over j ≤ i, or < i (exclusive), or from the end (reverse).

    VJP: dxⱼ = Σᵢ pᵢⱼ dyᵢ, pᵢ the softmax of the terms of yᵢ.
    """
    axis, exclusive = int(axis) % x.ndim, node.attribute("exclusive")
    rows = np.moveaxis(x, axis, -1)
    n = rows.shape[-1]
    counts = np.tri(n, k=-1 if exclusive else 0, dtype=bool)
    counts = counts[::-1, ::-1] if node.attribute("reverse") else counts
    some = counts.any(axis=-1)
    terms = np.where(counts | ~some[:, None], np.expand_dims(rows, -2), -np.inf)
    total, p = log_sum_exp(terms, -1)
    y = np.where(some, total[..., 0], float(node.op.dtypes[0].min))

    def vjp(dy):
        d = np.expand_dims(np.where(some, np.moveaxis(dy, axis, -1), 0.0), -1)
        return np.moveaxis((p * d).sum(axis=-2), -1, axis), None

    return np.moveaxis(y, -1, axis), vjp
