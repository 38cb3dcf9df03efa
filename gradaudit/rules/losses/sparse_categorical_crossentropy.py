"""Categorical cross-entropy with integer targets."""

import numpy as np
from keras import losses

from gradaudit.rules.primitives.clip import clipped
from gradaudit.rules.primitives.log_softmax import log_softmax
from gradaudit.rules.registry import Case, rule


def _case(name, inputs, shape=(5, 3), kinks=(), **options):
    build = lambda: losses.SparseCategoricalCrossentropy(**options)  # noqa: E731
    return Case(name, build, shape, kinks, "integer", inputs)


def _counted(call, y_true, loss):
    """Return where the target is not ignore_class; None where no class is ignored."""
    ignored = call.options.get("ignore_class")
    if ignored is None:
        return None
    classes = call.numbers(call.array(y_true)).reshape(loss.shape)
    return classes != call.numbers(call.array(ignored))


def _uses_logits(options):
    """Leaving out predictions of an ignored class makes a new tensor, without logits."""
    return "takes" if options.get("ignore_class") is None else None


@rule(
    losses.sparse_categorical_crossentropy,
    cases=[
        _case("probabilities", "probability", kinks=(1e-7, 1 - 1e-7)),
        _case("logits", "real", from_logits=True),
        _case("3-D", "real", shape=(2, 3, 4), from_logits=True),
        _case("axis 1 of 2", "real", from_logits=True, axis=1),
        _case("a class ignored", "probability", ignore_class=1),
        _case("in logits", "real", shape=(2, 3, 4), from_logits=True, ignore_class=0),
        _case("summed", "real", from_logits=True, ignore_class=0, reduction="sum"),
        _case("mean", "real", ignore_class=2, reduction="mean_with_sample_weight"),
        _case("none there", "probability", ignore_class=-1),
    ],
    source="keras/src/backend/tensorflow/nn.py",
    mask=_counted,
    uses_logits=_uses_logits,
)
def sparse_categorical_crossentropy(call, y_true, y_pred):
    """Apply ℓ = −log pₖ over the last axis, k the target.

    From logits z: p = softmax(z). From probabilities q: z = log of q clipped to [ε, 1 − ε], which
    renormalises the clipped q. The losses of targets that are ignore_class are 0, and masked. Keras
    knows no other axis than the last with TensorFlow.

    Shapes: y_true (N, ...) or (N, ..., 1), y_pred (N, ..., K), ℓ (N, ...).
    VJP:    dz = (p − 1ₖ) dℓ, 0 where ignored; dq = dz / q, 0 where clipped.
    Kinks:  q = ε and q = 1 − ε (ε = keras.config.epsilon()).
    """
    from_logits = call.options.get("from_logits", False)
    q, q_vjp = clipped(y_pred, call.epsilon, 1.0 - call.epsilon)
    log_p, p = log_softmax(y_pred if from_logits else np.log(q), -1)
    classes = np.asarray(y_true).astype(np.int64).reshape(y_pred.shape[:-1])
    is_target = np.expand_dims(classes, -1) == np.arange(y_pred.shape[-1])
    t = call.array(is_target)

    def vjp(d):
        d = d if counted is None else np.where(counted, d, 0.0)
        dz = (p - t) * np.expand_dims(d, -1)
        return dz if from_logits else q_vjp(dz / q)

    loss = -np.where(is_target, log_p, 0.0).sum(axis=-1)  # log p of another class may be −∞
    counted = _counted(call, y_true, loss)
    return loss if counted is None else np.where(counted, loss, 0.0), vjp
