"""Ops that reduce axes; each binds to a function of `primitives.reductions`."""

import numpy as np

from gradaudit.rules.primitives import reductions
from gradaudit.tracing.tf_ops.table import op


def _bind(kind, formula, dx, reduce):
    @op(kind)
    def apply(node, x, axes):
        axes = tuple(np.atleast_1d(axes).tolist())
        if not axes:
            return x, lambda dy: (dy, None)
        y, vjp = reduce(x, axes, node.attribute("keep_dims"))
        return y, lambda dy: (vjp(dy), None)

    apply.__doc__ = f"Compute y = {formula} over axes; dx = {dx}."


_bind("Sum", "Σ x", "dy, broadcast", reductions.total)
_bind("Mean", "Σ x / n", "dy / n, broadcast", reductions.mean)
_bind("Max", "max x", "dy / k at each of the k largest, 0 elsewhere", reductions.largest)
_bind("Min", "min x", "dy / k at each of the k smallest, 0 elsewhere", reductions.smallest)
_bind("Prod", "Π x", "dy times the product of the other elements", reductions.product)


@op("EuclideanNorm")
def euclidean_norm(node, x, axes):
    """Compute y = √Σ x² over axes; dx = x dy / y."""
    y, vjp = reductions.norm(x, tuple(np.atleast_1d(axes).tolist()), node.attribute("keep_dims"))
    return y, lambda dy: (vjp(dy), None)


@op("L2Loss")
def l2_loss(node, x):
    """Compute y = Σ x² / 2; dx = x dy."""
    return np.square(x).sum() / 2, lambda dy: dy * x
