"""Cross-entropies of logits, which are ops of their own."""

import numpy as np

from gradaudit.rules.primitives.log_softmax import log_softmax
from gradaudit.tracing.tf_ops.table import op

_FAR_FROM_ONE = 1e-3
"""Targets whose sum is off by more do not sum to 1 but for rounding, in any precision."""


@op("SoftmaxCrossEntropyWithLogits")
def softmax_cross_entropy(node, z, t):
    """Apply ℓ = −Σ t log p along the last axis, p = softmax(z); the other output is q = p − t.

    VJP: dz = (p Σ t − t) dℓ, which TensorFlow takes for (p − t) dℓ, and p (dq − Σ p dq);
    dt = −log p dℓ − dq.
    """
    log_p, p = log_softmax(z, -1)
    if np.any(np.abs(node.numbers(t).sum(axis=-1) - 1) > _FAR_FROM_ONE):
        node.misleads()

    def vjp(dloss, dq):
        d = np.expand_dims(dloss, -1)
        dz = (p * t.sum(axis=-1, keepdims=True) - t) * d
        return dz + _softmax_vjp(p, dq), -(log_p * d) - dq

    return (-(t * log_p).sum(axis=-1), p - t), vjp


@op("SparseSoftmaxCrossEntropyWithLogits")
def sparse_softmax_cross_entropy(node, z, labels):
    """Apply ℓ = −log p of the class that a label names; the other output is q, p − 1 of that class.

    VJP: dz = q dℓ, and p (dq − Σ p dq).
    """
    log_p, p = log_softmax(z, -1)
    own = np.arange(z.shape[-1]) == np.expand_dims(labels, -1)

    def vjp(dloss, dq):
        return (p - own) * np.expand_dims(dloss, -1) + _softmax_vjp(p, dq), None

    return (-np.where(own, log_p, 0.0).sum(axis=-1), p - own), vjp


def _softmax_vjp(p, dp):
    return p * (dp - (p * dp).sum(axis=-1, keepdims=True))
