"""Ops that reduce the rows of equal id, deal rows out by id, and put them together again."""

import functools

import numpy as np

from gradaudit.numerics import scatter_add
from gradaudit.rules.primitives import reductions
from gradaudit.rules.primitives.gather import moved
from gradaudit.tracing.tf_ops.table import op


def _of_segments(*kinds):
    """Register a reduction: the decorated (node, rows, ids, count) is given no negative id.

    A row whose id is negative, or none of the count, has no part in y; its dx is 0.
    """

    def register(reduce):
        @op(*kinds)
        @functools.wraps(reduce)
        def apply(node, x, ids, count=None):
            flat = ids.reshape(-1)
            count = int(flat.max(initial=-1)) + 1 if count is None else int(count)
            kept = np.flatnonzero((flat >= 0) & (flat < count))
            rows, back = moved(x, lambda a: a.reshape(ids.size, *x.shape[ids.ndim :])[kept])
            y, vjp = reduce(node, rows, flat[kept], count)
            return y, lambda dy: (back(vjp(dy)), *[None] * (len(node.op.inputs) - 1))

        return apply

    return register


@_of_segments("SegmentSum", "UnsortedSegmentSum")
def segment_sum(node, rows, ids, count):
    """Compute yₖ = Σ xᵢ over the i whose id is k; dxᵢ = dyₖ."""
    return scatter_add(rows, ids, count), lambda dy: np.take(dy, ids, 0)


@_of_segments("SegmentMean")
def segment_mean(node, rows, ids, count):
    """Compute yₖ = Σ xᵢ / nₖ over the nₖ rows whose id is k, 0 for none; dxᵢ = dyₖ / nₖ."""
    n = np.maximum(np.bincount(ids, minlength=count), 1.0)
    n = node.array(n.reshape(-1, *[1] * (rows.ndim - 1)))
    return scatter_add(rows, ids, count) / n, lambda dy: np.take(dy / n, ids, 0)


@_of_segments("SegmentMax", "SegmentMin", "UnsortedSegmentMax", "UnsortedSegmentMin")
def segment_extreme(node, rows, ids, count):
    """Compute yₖ = max xᵢ, or min, over the i whose id is k; dxᵢ = dyₖ / m at the m extreme ones.

    Where there is none: 0 for sorted ids, and the lowest (highest) number for unsorted ones.
    """
    is_max = node.op.kind.endswith("Max")
    reduce = reductions.largest if is_max else reductions.smallest
    laid, laid_vjp = _side_by_side(rows, ids, count, -np.inf if is_max else np.inf)
    y, vjp = reduce(laid, 1)
    limits = np.finfo(node.op.dtypes[0].as_numpy_dtype)
    beyond = (limits.min if is_max else limits.max) if node.op.kind.startswith("Un") else 0.0
    is_empty = np.isin(np.arange(count), ids, invert=True).reshape(-1, *[1] * (rows.ndim - 1))

    def back(dy):
        return laid_vjp(vjp(np.where(is_empty, 0.0, dy)))

    return np.where(is_empty, node.array(np.full(y.shape, float(beyond))), y), back


@_of_segments("SegmentProd", "UnsortedSegmentProd")
def segment_product(node, rows, ids, count):
    """Compute yₖ = Π xᵢ over the i whose id is k, 1 for none; dxᵢ = dyₖ times the other xⱼ."""
    laid, laid_vjp = _side_by_side(rows, ids, count, 1.0)
    y, vjp = reductions.product(laid, 1)
    return y, lambda dy: laid_vjp(vjp(dy))


def _side_by_side(rows, ids, count, filling):
    """Return the rows of each id as (count, most of an id, ...), and the VJP."""
    order = np.argsort(ids, kind="stable")
    _, starts, lengths = np.unique(ids[order], return_index=True, return_counts=True)
    places = np.full((count, lengths.max(initial=1)), len(rows))
    for start, length in zip(starts, lengths, strict=True):
        places[ids[order[start]], :length] = order[start : start + length]
    is_row = places < len(rows)
    inside = is_row.reshape(*places.shape, *[1] * (rows.ndim - 1))

    edge = [(0, 1)] + [(0, 0)] * (rows.ndim - 1)  # a row to look up where there is none
    back = np.empty(len(rows), int)
    back[places[is_row]] = np.flatnonzero(is_row)

    def vjp(dy):
        return dy.reshape(-1, *dy.shape[2:])[back]

    return np.where(inside, np.pad(rows, edge)[places], filling), vjp


@op("DynamicPartition")
def dynamic_partition(node, x, partitions):
    """Compute yₖ = the rows of x whose partition is k; dx = the dyₖ, put back."""
    flat = partitions.reshape(-1)
    rows = x.reshape(flat.size, *x.shape[partitions.ndim :])
    dealt = [np.flatnonzero(flat == i) for i in range(node.attribute("num_partitions"))]
    order = np.argsort(np.concatenate(dealt))

    def vjp(*dys):
        return np.concatenate(dys)[order].reshape(x.shape), None

    return tuple(rows[places] for places in dealt), vjp


@op("DynamicStitch", "ParallelDynamicStitch")
def dynamic_stitch(node, *inputs):
    """Compute y[indexᵢ] = rowᵢ, the last of several; drowᵢ = dy[indexᵢ], 0 for the others.

    Raises:
        UnsupportedModelError: a place is left unset.
    """
    half = len(inputs) // 2
    indices, parts = inputs[:half], inputs[half:]
    rest = parts[0].shape[indices[0].ndim :]
    rows = np.concatenate([p.reshape(-1, *rest) for p in parts])
    places = np.concatenate([i.reshape(-1) for i in indices])
    last = np.full(int(places.max(initial=-1)) + 1, -1)
    last[places] = np.arange(len(places))
    if (last < 0).any():
        raise node.unsupported("leaves places unset: what is in them is not known")
    if len(places) > len(last):
        node.misleads()  # it gives the rows that were replaced a gradient, too
    stays = (last[places] == np.arange(len(places))).reshape(-1, *[1] * len(rest))
    ends = np.cumsum([i.size for i in indices])[:-1]

    def vjp(dy):
        drows = np.where(stays, dy[places], 0.0)
        spans = zip([0, *ends], [*ends, len(places)], strict=True)
        cut = [drows[a:b].reshape(p.shape) for (a, b), p in zip(spans, parts, strict=True)]
        return *[None] * half, *cut

    return rows[last], vjp
