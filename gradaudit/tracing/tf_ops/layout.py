"""Ops that lay elements out anew: other shapes, orders of axes, repetition, cells as channels."""

import numpy as np

from gradaudit.rules.primitives import layout
from gradaudit.rules.primitives.broadcasting import broadcast
from gradaudit.rules.primitives.gather import moved
from gradaudit.tracing.tf_ops.moving import moving
from gradaudit.tracing.tf_ops.table import op


@op("Reshape")
def reshape(node, x, shape):
    """Compute y = x in another shape; dx = dy in x's shape."""
    y, vjp = layout.reshape(x, shape.tolist())
    return y, lambda dy: (vjp(dy), None)


@op("Squeeze")
def squeeze(node, x):
    """Compute y = x without axes of length 1; dx = dy in x's shape."""
    return layout.squeeze(x, tuple(node.attribute("squeeze_dims")) or None)


@op("ExpandDims")
def expand_dims(node, x, axis):
    """Compute y = x with a new axis of length 1; dx = dy in x's shape."""
    y, vjp = layout.expand_dims(x, int(axis))
    return y, lambda dy: (vjp(dy), None)


@op("Transpose")
def transpose(node, x, order):
    """Compute y = x with its axes in another order; dx = dy with them in the first order."""
    y, vjp = layout.transpose(x, order)
    return y, lambda dy: (vjp(dy), None)


@op("BroadcastTo")
def broadcast_to(node, x, shape):
    """Compute y = x, broadcast to a shape; dx = Σ dy over the axes of broadcasting."""
    y, vjp = broadcast(x, tuple(shape.tolist()))
    return y, lambda dy: (vjp(dy), None)


@moving("Tile")
def tile(node, x, multiples):
    """Compute y = x repeated along its axes; dx = Σ dy over the copies."""
    return np.tile(x, multiples)


@moving("ReverseV2")
def reverse(node, x, axes):
    """Compute yᵢ = xₙ₋₁₋ᵢ along axes; dxᵢ = dyₙ₋₁₋ᵢ."""
    return np.flip(x, tuple(axes.tolist()))


@moving("Roll")
def roll(node, x, shift, axes):
    """Compute yᵢ = xᵢ₋ₛ along axes, s the shift, modulo n; dxᵢ = dyᵢ₊ₛ."""
    return np.roll(x, tuple(np.atleast_1d(shift)), tuple(np.atleast_1d(axes)))


@moving("ReverseSequence")
def reverse_sequence(node, x, lengths):
    """Compute yᵢ = xₗ₋₁₋ᵢ for i < l, xᵢ beyond, l the length of each row; dx = dy, put back."""
    along, batch = node.attribute("seq_dim"), node.attribute("batch_dim")
    rows = np.moveaxis(x, (batch, along), (0, 1))
    place = np.arange(rows.shape[1])
    turned = lengths[:, None] - 1 - place
    taken = rows[np.arange(len(rows))[:, None], np.where(turned >= 0, turned, place)]
    return np.moveaxis(taken, (0, 1), (batch, along))


@moving("SpaceToDepth")
def space_to_depth(node, x):
    """Compute y = the cells of each block of x as channels of one cell; dx = dy, put back."""
    n, h, w, c = x.shape
    size = node.attribute("block_size")
    apart = x.reshape(n, h // size, size, w // size, size, c)
    return np.transpose(apart, (0, 1, 3, 2, 4, 5)).reshape(n, h // size, w // size, -1)


@moving("DepthToSpace")
def depth_to_space(node, x):
    """Compute y = the channels of each cell of x as a block of cells; dx = dy, put back."""
    n, h, w, c = x.shape
    size = node.attribute("block_size")
    apart = x.reshape(n, h, w, size, size, c // size**2)
    return np.transpose(apart, (0, 1, 3, 2, 4, 5)).reshape(n, h * size, w * size, -1)


@op("SpaceToBatchND")
def space_to_batch(node, x, block, paddings):
    """Compute y = x padded, cells at places equal modulo a block as one row; dx = dy, put back."""
    rest = x.ndim - 1 - len(block)
    edges = [(0, 0), *map(tuple, paddings.tolist()), *[(0, 0)] * rest]
    inner = tuple(slice(b, b + n) for (b, _), n in zip(edges, x.shape, strict=True))
    y, vjp = moved(np.pad(x, edges), lambda array: _to_batch(array, block.tolist()))
    return y, lambda dy: (vjp(dy)[inner], None, None)


def _to_batch(x, block):
    n, *cells = x.shape
    spatial, rest = cells[: len(block)], cells[len(block) :]
    apart = [part for size, b in zip(spatial, block, strict=True) for part in (size // b, b)]
    m = len(block)
    order = [
        *range(2, 2 * m + 1, 2),
        0,
        *range(1, 2 * m, 2),
        *range(2 * m + 1, 2 * m + 1 + len(rest)),
    ]
    laid = np.transpose(x.reshape(n, *apart, *rest), order)
    sizes = [size // b for size, b in zip(spatial, block, strict=True)]
    return laid.reshape(-1, *sizes, *rest)


@moving("BatchToSpaceND")
def batch_to_space(node, x, block, crops):
    """Compute y = the inverse of SpaceToBatchND, cropped; dx = dy, put back, 0 where cropped."""
    block, m = block.tolist(), len(block)
    spatial, rest = x.shape[1 : 1 + m], x.shape[1 + m :]
    apart = x.reshape(*block, -1, *spatial, *rest)
    order = [m, *(i for k in range(m) for i in (m + 1 + k, k)), *range(2 * m + 1, apart.ndim)]
    whole = [size * b for size, b in zip(spatial, block, strict=True)]
    y = np.transpose(apart, order).reshape(-1, *whole, *rest)
    spans = zip(whole, crops.tolist(), strict=True)
    return y[(slice(None), *(slice(b, size - e) for size, (b, e) in spans))]
