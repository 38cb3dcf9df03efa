"""Ops that return shapes and sizes."""

import numpy as np

from gradaudit.tracing.tf_ops.table import op


def _whole(node, value):
    return np.array(value, node.op.dtypes[0].as_numpy_dtype)


@op("Shape")
def shape(node, x):
    """Compute y = the shape of x. No gradient passes."""
    return _whole(node, x.shape), None


@op("ShapeN")
def shape_n(node, *xs):
    """Compute yᵢ = the shape of xᵢ. No gradient passes."""
    return tuple(_whole(node, x.shape) for x in xs), None


@op("Rank")
def rank(node, x):
    """Compute y = the number of axes of x. No gradient passes."""
    return _whole(node, x.ndim), None


@op("Size")
def size(node, x):
    """Compute y = the number of elements of x. No gradient passes."""
    return _whole(node, x.size), None
