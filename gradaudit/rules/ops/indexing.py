"""Ops that choose by value, look up, or put at places."""

import numpy as np

from gradaudit.numerics import scatter_add
from gradaudit.rules.moved import moved
from gradaudit.rules.ops.table import op


@op("OneHot")
def one_hot(node, indices, depth, on, off):
    """Make constants of whole numbers."""
    axis, depth = node.attribute("axis"), int(depth)
    hot = np.expand_dims(indices, -1) == np.arange(depth)
    hot = hot if axis == -1 else np.moveaxis(hot, -1, axis)
    return np.where(hot, on, off), lambda dy: (
        None,
        None,
        np.where(hot, dy, 0.0).sum(),
        np.where(hot, 0.0, dy).sum(),
    )


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
    held = node.run.step.read(variable, variable.dtype)

    def vjp(dy):
        rows = dy.reshape(-1, *held.shape[1:])
        node.run.collect(variable.path, scatter_add(rows, indices.reshape(-1), len(held)))

    y = np.take(held, indices.reshape(-1), 0).reshape(*indices.shape, *held.shape[1:])
    return y, lambda dy: (vjp(dy), None)
