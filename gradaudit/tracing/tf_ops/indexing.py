"""Ops that choose by value, look up, or put at places."""

import numpy as np

from gradaudit.numerics import scatter_add
from gradaudit.rules.primitives.gather import moved
from gradaudit.tracing.tf_ops.shape import moving
from gradaudit.tracing.tf_ops.state import read_variable
from gradaudit.tracing.tf_ops.table import op


@op("OneHot")
def one_hot(node, indices, depth, on, off):
    """Make constants of whole numbers: TensorFlow lets no gradient through to the two values."""
    axis, depth = node.attribute("axis"), int(depth)
    hot = np.expand_dims(indices, -1) == np.arange(depth)
    return np.where(hot if axis == -1 else np.moveaxis(hot, -1, axis), on, off), None


@op("Range")
def arange(node, start, limit, delta):
    numbers = [node.numbers(each).item() for each in (start, limit, delta)]
    return node.array(np.arange(*numbers)), None


@op("TopKV2")
def top_k(node, x, k):
    """Take the k largest of each row, the first of equal ones before the others."""
    order = np.argsort(-node.numbers(x), axis=-1, kind="stable")[..., : int(k)]
    y, vjp = moved(x, lambda array: np.take_along_axis(array, order, -1))
    return (y, order.astype(node.op.dtypes[1].as_numpy_dtype)), lambda dy, _: (vjp(dy), None)


@op("ArgMax", "ArgMin")
def argument(node, x, axis):
    found = np.argmax if node.op.kind == "ArgMax" else np.argmin
    return found(node.numbers(x), int(axis)).astype(node.op.dtypes[0].as_numpy_dtype), None


@op("ResourceGather", always=True)
def resource_gather(node, variable, indices):
    """Look rows of a variable up."""
    held, read_vjp = read_variable(node, variable)

    def vjp(dy):
        rows = dy.reshape(-1, *held.shape[1:])
        return read_vjp(scatter_add(rows, indices.reshape(-1), len(held))), None

    return np.take(held, indices.reshape(-1), 0).reshape(*indices.shape, *held.shape[1:]), vjp


@op("ScatterNd")
def scatter_nd(node, indices, updates, shape):
    """Put rows at places of zeros, added where they meet."""
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
    """Put rows at places of x, or add them there, or take them away."""
    key = tuple(np.moveaxis(indices, -1, 0))
    depth = indices.shape[-1]
    flat = np.ravel_multi_index(key, x.shape[:depth]).reshape(-1)
    rows = updates.reshape(flat.size, *x.shape[depth:])
    count = int(np.prod(x.shape[:depth]))
    replaces = node.op.kind == "TensorScatterUpdate"
    if replaces and len(np.unique(flat)) < len(flat):
        raise node.unsupported("puts several rows in one place, of which any may stay")
    sign = -1.0 if node.op.kind == "TensorScatterSub" else 1.0
    put = scatter_add(rows, flat, count).reshape(x.shape)
    taken = np.isin(np.arange(count), flat).reshape(*x.shape[:depth], *[1] * (x.ndim - depth))

    def vjp(dy):
        drows = dy[key].reshape(updates.shape)
        return np.where(taken, 0.0, dy) if replaces else dy, None, drows * sign

    return np.where(taken, put, x) if replaces else x + put * sign, vjp


@moving("ReverseSequence")
def reverse_sequence(node, x, lengths):
    """Turn the first steps of each row round, as many as its length says."""
    along, batch = node.attribute("seq_dim"), node.attribute("batch_dim")
    rows = np.moveaxis(x, (batch, along), (0, 1))
    place = np.arange(rows.shape[1])
    turned = lengths[:, None] - 1 - place
    taken = rows[np.arange(len(rows))[:, None], np.where(turned >= 0, turned, place)]
    return np.moveaxis(taken, (0, 1), (batch, along))
