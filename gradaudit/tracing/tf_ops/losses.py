"""Cross-entropies of logits, which are ops of their own."""

import numpy as np

from gradaudit.numerics import chained
from gradaudit.rules.primitives.log_softmax import log_softmax, not_one, softmax_vjp
from gradaudit.tracing.tf_ops.table import op


@op("SoftmaxCrossEntropyWithLogits")
def softmax_cross_entropy(node, z, t):
    """Compute ℓ = −Σ t log p along the last axis, p = softmax(z), and q = p − t.

    VJP: dz = (p Σ t − t) dℓ + p (dq − Σ p dq), of which TensorFlow has (p − t) dℓ as the first;
    dt = −log p dℓ − dq.
    """
    log_p, p = log_softmax(z, -1)
    if node.wanted[0] and (row := not_one(node.numbers(t), -1, node.dtype)):
        node.misleads(row)

    def vjp(dloss, dq):
        d = np.expand_dims(dloss, -1)
        dz = (p * t.sum(axis=-1, keepdims=True) - t) * d
        return dz + softmax_vjp(p, dq, -1), -chained(d, log_p) - dq

    return (-chained(t, log_p).sum(axis=-1), p - t), vjp


@op("SparseSoftmaxCrossEntropyWithLogits")
def sparse_softmax_cross_entropy(node, z, labels):
    """Compute ℓ = −log p of a label's class, and q = p − 1 for that class, p elsewhere.

    VJP: dz = q dℓ + p (dq − Σ p dq).
    """
    log_p, p = log_softmax(z, -1)
    own = np.arange(z.shape[-1]) == np.expand_dims(labels, -1)

    def vjp(dloss, dq):
        return (p - own) * np.expand_dims(dloss, -1) + softmax_vjp(p, dq, -1), None

    return (-np.where(own, log_p, 0.0).sum(axis=-1), p - own), vjp
