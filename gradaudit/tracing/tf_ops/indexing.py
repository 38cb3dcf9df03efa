"""Ops that take elements by place or by rank, and ops that put rows at places."""

import numpy as np

from gradaudit.numerics import scatter_add
from gradaudit.rules.primitives.extremes import ties_of
from gradaudit.rules.primitives.gather import moved
from gradaudit.tracing.tf_ops.moving import moving
from gradaudit.tracing.tf_ops.table import op


@moving("GatherV2")
def gather(node, x, indices, axis):
    """Compute yᵢ = x at indexᵢ along an axis; dx = Σ dyᵢ over the i that name a place."""
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
    """Compute yᵢ = x[indexᵢ], an index a row of numbers; dx = Σ dyᵢ over the i that name it."""
    return x[tuple(np.moveaxis(indices, -1, 0))]


@op("TopKV2")
def top_k(node, x, k):
    """Compute y = the k largest of each row and their places; dx = dy at these places, 0 elsewhere.

    Of equal elements the first comes first; another may take its cotangent as well.
    """
    numbers = node.numbers(x)
    ranked = np.where(np.isnan(numbers), -np.inf, -numbers)  # NaN comes first
    order = np.argsort(ranked, axis=-1, kind="stable")[..., : int(k)]
    taken = order
    if ties_of(x).extremes == "last":
        reverse = np.argsort(np.flip(ranked, -1), axis=-1, kind="stable")[..., : int(k)]
        taken = numbers.shape[-1] - 1 - reverse
    y, vjp = moved(x, lambda array: np.take_along_axis(array, taken, -1))
    return (y, order.astype(node.op.dtypes[1].as_numpy_dtype)), lambda dy, _: (vjp(dy), None)


@op("ArgMax", "ArgMin")
def argument(node, x, axis):
    """Compute y = the place of the largest, or smallest, x along an axis. No gradient passes."""
    found = np.argmax if node.op.kind == "ArgMax" else np.argmin
    return found(node.numbers(x), int(axis)).astype(node.op.dtypes[0].as_numpy_dtype), None


@op("ScatterNd")
def scatter_nd(node, indices, updates, shape):
    """Compute y = Σ of the updates of each place; dupdates = dy at their places."""
    shape = tuple(shape.tolist())
    depth = indices.shape[-1]
    flat = np.ravel_multi_index(tuple(np.moveaxis(indices, -1, 0)), shape[:depth]).reshape(-1)
    rows = updates.reshape(flat.size, *shape[depth:])
    y = scatter_add(rows, flat, int(np.prod(shape[:depth]))).reshape(shape)

    def vjp(dy):
        return None, dy[tuple(np.moveaxis(indices, -1, 0))].reshape(updates.shape), None

    return y, vjp


@op("TensorScatterUpdate", "TensorScatterAdd", "TensorScatterSub")
def tensor_scatter(node, x, indices, updates):
    """Compute y = x, at the places that indices name replaced by updates, or plus or minus these.

    VJP: dx = dy, 0 where replaced; dupdates = dy at their places, −dy where subtracted.

    Raises:
        UnsupportedModelError: several updates replace one place, of which any may remain.
    """
    key = tuple(np.moveaxis(indices, -1, 0))
    depth = indices.shape[-1]
    flat = np.ravel_multi_index(key, x.shape[:depth]).reshape(-1)
    rows = updates.reshape(flat.size, *x.shape[depth:])
    count = int(np.prod(x.shape[:depth]))
    replaces = node.op.kind == "TensorScatterUpdate"
    if replaces and len(np.unique(flat)) < len(flat):
        raise node.unsupported("puts several rows in one place, of which any may remain")
    sign = -1.0 if node.op.kind == "TensorScatterSub" else 1.0
    put = scatter_add(rows, flat, count).reshape(x.shape)
    taken = np.isin(np.arange(count), flat).reshape(*x.shape[:depth], *[1] * (x.ndim - depth))

    def vjp(dy):
        drows = dy[key].reshape(updates.shape)
        return np.where(taken, 0.0, dy) if replaces else dy, None, drows * sign

    return np.where(taken, put, x) if replaces else x + put * sign, vjp
