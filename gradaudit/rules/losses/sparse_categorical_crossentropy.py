"""Categorical cross-entropy with integer targets."""

import numpy as np
from keras import losses

from gradaudit.rules.registry import Case, rule


def _case(name, inputs, shape=(5, 3), **options):
    return Case(
        name,
        lambda: losses.SparseCategoricalCrossentropy(**options),
        shape,
        targets="integer",
        inputs=inputs,
    )


@rule(
    losses.sparse_categorical_crossentropy,
    cases=[
        _case("probabilities", "probability"),
        _case("logits", "real", from_logits=True),
        _case("3-D", "real", shape=(2, 3, 4), from_logits=True),
    ],
    source="keras/src/backend/tensorflow/nn.py",
    options=("from_logits", "axis"),
)
def sparse_categorical_crossentropy(call, y_true, y_pred):
    """Apply ℓ = −log pₖ over the last axis, k the target.

    From logits z: p = softmax(z). From probabilities q: z = log of q clipped to [ε, 1 − ε], which
    renormalises the clipped q.

    Shapes: y_true (N, ...) or (N, ..., 1), y_pred (N, ..., K), ℓ (N, ...).
    VJP:    dz = (p − 1ₖ) dℓ; dq = dz / q, 0 where clipped.
    Kinks:  q = ε and q = 1 − ε (ε = keras.config.epsilon()).
    """
    low, high = call.epsilon, 1.0 - call.epsilon
    from_logits = call.options.get("from_logits", False)
    clipped = y_pred if from_logits else np.clip(y_pred, low, high)
    z = y_pred if from_logits else np.log(clipped)
    classes = np.asarray(y_true).astype(np.int64).reshape(y_pred.shape[:-1])
    t = call.array(np.expand_dims(classes, -1) == np.arange(y_pred.shape[-1]))

    shifted = z - z.max(axis=-1, keepdims=True)
    e = np.exp(shifted)
    total = e.sum(axis=-1, keepdims=True)

    def vjp(d):
        dz = (e / total - t) * np.expand_dims(d, -1)
        return (
            dz if from_logits else np.where((y_pred >= low) & (y_pred <= high), dz / clipped, 0.0)
        )

    return (t * (np.log(total) - shifted)).sum(axis=-1), vjp
