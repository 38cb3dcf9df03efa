"""Ops that join tensors along an axis, or cut one along it."""

import numpy as np

from gradaudit.rules.primitives import layout
from gradaudit.tracing.tf_ops.table import op


@op("ConcatV2")
def concat(node, *parts):
    """Compute y = the xᵢ joined along an axis; dxᵢ = the part of dy that came from xᵢ."""
    *xs, axis = parts
    y, vjp = layout.concatenate(xs, int(axis))
    return y, lambda dy: (*vjp(dy), None)


@op("Pack")
def pack(node, *xs):
    """Compute y = the xᵢ joined along a new axis; dxᵢ = the part of dy that came from xᵢ."""
    return layout.stack(xs, node.attribute("axis"))


@op("Unpack")
def unpack(node, x):
    """Compute yₖ = the slices of x along an axis; dx = the dyₖ joined along it."""
    ys, vjp = layout.unstack(x, node.attribute("axis"))
    return ys, lambda *dys: vjp(dys)


@op("Split")
def split(node, axis, x):
    """Compute yₖ = equal parts of x along an axis; dx = the dyₖ joined along it."""
    count = node.attribute("num_split")
    size = x.shape[int(axis)] // count
    ys, vjp = layout.split(x, [size * (k + 1) for k in range(count)], int(axis))
    return ys, lambda *dys: (None, vjp(dys))


@op("SplitV")
def split_v(node, x, sizes, axis):
    """Compute yₖ = parts of x along an axis, of given sizes; dx = the dyₖ joined along it."""
    sizes = sizes.tolist()
    rest = x.shape[int(axis)] - sum(sizes) - 1  # of the one size that may be given as −1
    ends = np.cumsum([rest if size < 0 else size for size in sizes]).tolist()
    ys, vjp = layout.split(x, ends, int(axis))
    return ys, lambda *dys: (vjp(dys), None, None)
