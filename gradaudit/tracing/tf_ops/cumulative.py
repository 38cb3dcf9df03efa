"""Ops of cumulative sums, products and logarithms of sums along an axis."""

import numpy as np

from gradaudit.rules.primitives.log_softmax import log_sum_exp
from gradaudit.tracing.tf_ops.table import op


@op("Cumsum")
def cumsum(node, x, axis):
    """Compute yᵢ = Σ xⱼ over j ≤ i; dxⱼ = Σ dyᵢ over i ≥ j.

    Exclusive: over j < i. Reverse: the order is that from the end.
    """
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
    """Compute yᵢ = Π xⱼ over j ≤ i; dxⱼ = Σ dyᵢ times the product of the others, over i ≥ j.

    Exclusive: over j < i. Reverse: the order is that from the end.
    """
    axis, exclusive = int(axis) % x.ndim, node.attribute("exclusive")
    if node.wanted[0]:
        node.misleads("where x is 0", node.numbers(x) == 0)  # TensorFlow divides y by x
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


@op("CumulativeLogsumexp")
def cumulative_log_sum_exp(node, x, axis):
    """Compute yᵢ = log Σ exp xⱼ over j ≤ i, or < i (exclusive), or from the end (reverse).

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
