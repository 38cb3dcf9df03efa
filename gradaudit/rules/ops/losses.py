"""Cross-entropies of logits, which are ops of their own."""

import numpy as np

from gradaudit.rules.log_softmax import log_softmax
from gradaudit.rules.ops.table import op


@op("SoftmaxCrossEntropyWithLogits")
def softmax_cross_entropy(node, z, t):
    """Apply ℓ = −Σ t log p along the last axis, p = softmax(z); the other output is dℓ/dz.

    VJP: dz = (p Σ t − t) dℓ, which TensorFlow takes for (p − t) dℓ; dt = −log p dℓ.
    """
    log_p, p = log_softmax(z, -1)

    def vjp(dloss, _):
        d = np.expand_dims(dloss, -1)
        return (p * t.sum(axis=-1, keepdims=True) - t) * d, -(log_p * d)

    return (-(t * log_p).sum(axis=-1), p - t), vjp


@op("SparseSoftmaxCrossEntropyWithLogits")
def sparse_softmax_cross_entropy(node, z, labels):
    """Apply ℓ = −log p of the class that a label names; dz = (p − 1 of that class) dℓ."""
    log_p, p = log_softmax(z, -1)
    own = np.arange(z.shape[-1]) == np.expand_dims(labels, -1)

    def vjp(dloss, _):
        return (p - own) * np.expand_dims(dloss, -1), None

    return (-np.where(own, log_p, 0.0).sum(axis=-1), p - own), vjp
