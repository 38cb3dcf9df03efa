"""Ops that take a slice of a tensor, put one into it, or pad it."""

import numpy as np

from gradaudit.rules.primitives.gather import moved
from gradaudit.tracing.tf_ops.moving import moving
from gradaudit.tracing.tf_ops.table import op


@moving("StridedSlice")
def strided_slice(node, x, begin, end, strides):
    """Compute y = x[begin:end:strides]; dx = dy in that slice, 0 elsewhere."""
    return x[_key(node, begin, end, strides)]


@op("StridedSliceGrad")
def strided_slice_grad(node, shape, begin, end, strides, g):
    """Compute y = g in the slice begin:end:strides of zeros; dg = dy[begin:end:strides]."""
    key = _key(node, begin, end, strides)
    put = moved(node.array(np.zeros(shape)), lambda array: array[key])[1]
    return put(g), lambda dy: (None, None, None, None, dy[key])


def _key(node, begin, end, strides):
    def has(mask, i):
        return node.attribute(mask) >> i & 1

    key = []
    for i in range(len(begin)):
        if has("ellipsis_mask", i):
            key.append(Ellipsis)
        elif has("new_axis_mask", i):
            key.append(None)
        elif has("shrink_axis_mask", i):
            key.append(int(begin[i]))
        else:
            first = None if has("begin_mask", i) else int(begin[i])
            last = None if has("end_mask", i) else int(end[i])
            key.append(slice(first, last, int(strides[i])))
    return tuple(key)


@moving("Slice")
def slice_of(node, x, begin, size):
    """Compute y = x[begin : begin + size]; dx = dy in that slice, 0 elsewhere."""
    spans = zip(begin.tolist(), size.tolist(), strict=True)
    return x[tuple(slice(b, None if n < 0 else b + n) for b, n in spans)]


@op("XlaDynamicUpdateSlice", misled=True)
def dynamic_update_slice(node, x, update, start):
    """Compute y = update in a block of x, and x elsewhere; TensorFlow has no gradient of it.

    The block begins at start, or as far before that as lets it end inside x.
    VJP: dx = 0 in the block, dy elsewhere; dupdate = dy in the block.
    """
    spans = zip(start.tolist(), x.shape, update.shape, strict=True)
    first = [min(max(begin, 0), n - size) for begin, n, size in spans]
    block = tuple(slice(b, b + size) for b, size in zip(first, update.shape, strict=True))
    inside = np.zeros(x.shape, bool)
    inside[block] = True
    put = moved(x, lambda array: array[block])[1]
    return np.where(inside, put(update), x), lambda dy: (np.where(inside, 0.0, dy), dy[block], None)


@moving("MirrorPad")
def mirror_pad(node, x, paddings):
    """Compute y = x with its mirror image beyond each edge; dx = Σ dy over the copies."""
    mode = {b"REFLECT": "reflect", b"SYMMETRIC": "symmetric"}[node.attribute("mode")]
    return np.pad(x, paddings.tolist(), mode=mode)


@op("Pad", "PadV2")
def pad(node, x, paddings, constant=None):
    """Compute y = x with a constant, or 0, beyond each edge.

    VJP: dx = dy inside; dconstant = Σ dy outside, which TensorFlow lets no gradient through to.
    """
    edges = [tuple(edge) for edge in paddings.tolist()]
    inner = tuple(slice(b, b + n) for (b, _), n in zip(edges, x.shape, strict=True))
    inside = np.pad(np.ones(x.shape, bool), edges)
    y = np.pad(x, edges)
    if constant is None:
        return y, lambda dy: (dy[inner], None)
    if node.wanted[2]:
        node.misleads()  # it lets no gradient through to the constant
    return (
        np.where(inside, y, constant),
        lambda dy: (dy[inner], None, np.where(inside, 0.0, dy).sum()),
    )
