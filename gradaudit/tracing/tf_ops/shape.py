"""Ops that only move elements, take some of them, or repeat them."""

import functools

import numpy as np

from gradaudit.rules.layers.concatenate import concatenated
from gradaudit.rules.primitives.broadcasting import unbroadcast
from gradaudit.rules.primitives.gather import moved
from gradaudit.tracing.tf_ops.table import op


def moving(*kinds):
    """Register an op that moves elements: the decorated (node, x, *others) says what it does."""

    def register(move):
        @op(*kinds)
        @functools.wraps(move)
        def apply(node, x, *others):
            y, vjp = moved(x, lambda array: move(node, array, *others))
            return y, lambda dy: (vjp(dy), *[None] * len(others))

        return apply

    return register


@op("Reshape", "Squeeze", "ExpandDims")
def reshape(node, x, *others):
    if node.op.kind == "Reshape":
        shape = tuple(others[0].tolist())
    elif node.op.kind == "ExpandDims":
        shape = np.expand_dims(np.empty(x.shape, bool), int(others[0])).shape
    else:
        axes = tuple(node.attribute("squeeze_dims"))
        shape = np.squeeze(np.empty(x.shape, bool), axes or None).shape
    return x.reshape(shape), lambda dy: (dy.reshape(x.shape), *[None] * len(others))


@op("Transpose")
def transpose(node, x, order):
    return np.transpose(x, order), lambda dy: (np.transpose(dy, np.argsort(order)), None)


@op("BroadcastTo")
def broadcast_to(node, x, shape):
    y = np.broadcast_to(x, tuple(shape.tolist()))
    return y, lambda dy: (unbroadcast(dy, x.shape), None)


@op("Fill")
def fill(node, shape, x):
    y = np.broadcast_to(x, tuple(shape.tolist()))
    return y, lambda dy: (None, unbroadcast(dy, x.shape))


@op("Empty", always=True)
def empty(node, shape):
    if not node.attribute("init"):
        raise node.unsupported("leaves its elements unset: what is in them is not known")
    return node.run.value(np.zeros(shape), node.op.dtypes[0]), None


@moving("Tile")
def tile(node, x, multiples):
    return np.tile(x, multiples)


@moving("ReverseV2")
def reverse(node, x, axes):
    return np.flip(x, tuple(axes.tolist()))


@moving("Roll")
def roll(node, x, shift, axes):
    return np.roll(x, tuple(np.atleast_1d(shift)), tuple(np.atleast_1d(axes)))


@moving("StridedSlice")
def strided_slice(node, x, begin, end, strides):
    return x[_key(node, begin, end, strides)]


@op("StridedSliceGrad")
def strided_slice_grad(node, shape, begin, end, strides, g):
    """Put g where a slice of zeros would be taken; dg is that slice of dy."""
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
    spans = zip(begin.tolist(), size.tolist(), strict=True)
    return x[tuple(slice(b, None if n < 0 else b + n) for b, n in spans)]


@op("XlaDynamicUpdateSlice", misled=True)
def dynamic_update_slice(node, x, update, start):
    """Put a block in the place of one of x, moved to the inside where it would reach beyond.

    dx has none of dy there, and the block all of it; TensorFlow has no gradient of the op.
    """
    spans = zip(start.tolist(), x.shape, update.shape, strict=True)
    first = [min(max(begin, 0), n - size) for begin, n, size in spans]
    block = tuple(slice(b, b + size) for b, size in zip(first, update.shape, strict=True))
    inside = np.zeros(x.shape, bool)
    inside[block] = True
    put = moved(x, lambda array: array[block])[1]
    return np.where(inside, put(update), x), lambda dy: (np.where(inside, 0.0, dy), dy[block], None)


@moving("GatherV2")
def gather(node, x, indices, axis):
    batch, axis = node.op.attributes.get("batch_dims", 0), int(axis) % x.ndim
    if not batch:
        return np.take(x, indices, axis)
    lead = int(np.prod(x.shape[:batch]))
    rows = np.arange(lead).reshape(-1, *[1] * (indices.ndim - batch))
    flat = np.moveaxis(x.reshape(lead, *x.shape[batch:]), axis - batch + 1, 1)
    taken = flat[rows, indices.reshape(lead, *indices.shape[batch:])]
    apart = indices.ndim - batch
    taken = np.moveaxis(
        taken, range(1, 1 + apart), range(axis - batch + 1, axis - batch + 1 + apart)
    )
    return taken.reshape(*x.shape[:batch], *taken.shape[1:])


@moving("GatherNd")
def gather_nd(node, x, indices):
    return x[tuple(np.moveaxis(indices, -1, 0))]


@moving("MatrixDiagPart", "MatrixDiagPartV2", "MatrixDiagPartV3")
def matrix_diag_part(node, x, *options):
    if options and np.any(options[0] != 0):
        raise node.unsupported("takes another diagonal than the main one")
    place = np.arange(min(x.shape[-2:]))
    return x[..., place, place]


@moving("SpaceToDepth")
def space_to_depth(node, x):
    n, h, w, c = x.shape
    size = node.attribute("block_size")
    apart = x.reshape(n, h // size, size, w // size, size, c)
    return np.transpose(apart, (0, 1, 3, 2, 4, 5)).reshape(n, h // size, w // size, -1)


@moving("DepthToSpace")
def depth_to_space(node, x):
    n, h, w, c = x.shape
    size = node.attribute("block_size")
    apart = x.reshape(n, h, w, size, size, c // size**2)
    return np.transpose(apart, (0, 1, 3, 2, 4, 5)).reshape(n, h * size, w * size, -1)


@moving("MirrorPad")
def mirror_pad(node, x, paddings):
    mode = {b"REFLECT": "reflect", b"SYMMETRIC": "symmetric"}[node.attribute("mode")]
    return np.pad(x, paddings.tolist(), mode=mode)


@op("Pad", "PadV2")
def pad(node, x, paddings, constant=None):
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


@op("SpaceToBatchND")
def space_to_batch(node, x, block, paddings):
    """Cut space into the rows of a batch: the cells whose places have the same rest."""
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
    moved = np.transpose(x.reshape(n, *apart, *rest), order)
    sizes = [size // b for size, b in zip(spatial, block, strict=True)]
    return moved.reshape(-1, *sizes, *rest)


@moving("BatchToSpaceND")
def batch_to_space(node, x, block, crops):
    """Undo SpaceToBatchND, and crop."""
    block, m = block.tolist(), len(block)
    spatial, rest = x.shape[1 : 1 + m], x.shape[1 + m :]
    apart = x.reshape(*block, -1, *spatial, *rest)
    order = [m, *(i for k in range(m) for i in (m + 1 + k, k)), *range(2 * m + 1, apart.ndim)]
    whole = [size * b for size, b in zip(spatial, block, strict=True)]
    y = np.transpose(apart, order).reshape(-1, *whole, *rest)
    spans = zip(whole, crops.tolist(), strict=True)
    return y[(slice(None), *(slice(b, size - e) for size, (b, e) in spans))]


@op("ConcatV2")
def concat(node, *parts):
    *xs, axis = parts
    y, vjp = concatenated(tuple(xs), int(axis))
    return y, lambda dy: (*vjp(dy)[0], None)


@op("Pack")
def pack(node, *xs):
    axis = node.attribute("axis") % (xs[0].ndim + 1)
    lead = (slice(None),) * axis
    return np.stack(xs, axis), lambda dy: tuple(dy[(*lead, i)] for i in range(len(xs)))


@op("Unpack")
def unpack(node, x):
    axis = node.attribute("axis") % x.ndim
    lead = (slice(None),) * axis
    parts = tuple(x[(*lead, i)] for i in range(x.shape[axis]))
    return parts, lambda *dys: np.stack(dys, axis)


@op("Split")
def split(node, axis, x):
    axis, count = int(axis) % x.ndim, node.attribute("num_split")
    parts = _parts(x, axis, [x.shape[axis] // count] * count)
    return parts, lambda *dys: (None, np.concatenate(dys, axis))


@op("SplitV")
def split_v(node, x, sizes, axis):
    axis, sizes = int(axis) % x.ndim, sizes.tolist()
    sizes = [x.shape[axis] - sum(sizes) - 1 if size < 0 else size for size in sizes]
    return _parts(x, axis, sizes), lambda *dys: (np.concatenate(dys, axis), None, None)


def _parts(x, axis, sizes):
    ends, lead = np.cumsum(sizes).tolist(), (slice(None),) * axis
    spans = zip([0, *ends], ends, strict=False)
    return tuple(x[(*lead, slice(start, end))] for start, end in spans)


@op("MatrixBandPart")
def matrix_band_part(node, x, lower, upper):
    rows, columns = np.indices(x.shape[-2:])
    below, above = (
        (int(lower) < 0) | (rows - columns <= lower),
        (int(upper) < 0) | (columns - rows <= upper),
    )
    kept = below & above
    return np.where(kept, x, 0.0), lambda dy: (np.where(kept, dy, 0.0), None, None)


@op("MatrixDiag", "MatrixDiagV2", "MatrixDiagV3")
def matrix_diag(node, x, *options):
    n = x.shape[-1]
    if options and (np.any(options[0] != 0) or not np.isin(options[1:3], (-1, n)).all()):
        raise node.unsupported("makes another diagonal than the main one of a square")
    eye, place = np.eye(n, dtype=bool), np.arange(n)
    y = np.where(eye, np.expand_dims(x, -1), 0.0)
    return y, lambda dy: (dy[..., place, place], *[None] * len(options))


@op("MatrixSetDiag", "MatrixSetDiagV2", "MatrixSetDiagV3")
def matrix_set_diag(node, x, diagonal, *options):
    if options and np.any(options[0] != 0):
        raise node.unsupported("sets another diagonal than the main one")
    place, eye = np.arange(diagonal.shape[-1]), np.eye(*x.shape[-2:], dtype=bool)
    column = np.expand_dims(diagonal, -1 if x.shape[-2] <= x.shape[-1] else -2)

    def vjp(dy):
        return np.where(eye, 0.0, dy), dy[..., place, place], *[None] * len(options)

    return np.where(eye, column, x), vjp
