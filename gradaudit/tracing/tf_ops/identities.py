"""Ops that hand tensors on, and ops at which a gradient ends."""

from gradaudit.tracing.tf_ops.table import op


@op("Identity", "EnsureShape", "CheckNumerics")
def identity(node, x):
    """Compute y = x; dx = dy."""
    return x, lambda dy: dy


@op("IdentityN")
def identity_n(node, *xs):
    """Compute yᵢ = xᵢ; dxᵢ = dyᵢ.

    `tf.custom_gradient` makes this op: the derivative ignores what it overrides.
    """
    return xs, lambda *dys: dys


@op("StopGradient", "PreventGradient")
def stop_gradient(node, x):
    """Compute y = x. No gradient passes."""
    return x, None
