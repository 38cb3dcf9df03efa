"""How a Keras loss makes one number out of the losses of the samples."""

from collections.abc import Callable

import numpy as np

from gradaudit.numerics.arithmetic import Array

REDUCTIONS = ("sum_over_batch_size", "mean", "sum", "mean_with_sample_weight")


def reduce_losses(
    call, losses: Array, sample_weight: np.ndarray | None, reduction: str
) -> tuple[Array, Callable[[Array], Array]]:
    """Return L = Σ w ℓ / d and its VJP, as keras/src/losses/loss.py reduces.

    Shapes: ℓ (N, ...), w (N,) or as ℓ, L ().
    VJP:    dℓ = w dL / d; d is the number of losses, whatever the weights; 1 for "sum"; Σ w for
            "mean_with_sample_weight".
    """
    weight = None
    if sample_weight is not None:
        weight = call.array(sample_weight)
        if weight.ndim > losses.ndim:
            weight = weight.reshape(losses.shape)
        elif weight.ndim < losses.ndim and losses.shape[-1] == 1:
            weight = weight.reshape(*weight.shape, 1)
    weighted = losses if weight is None else losses * weight
    if reduction == "sum":
        divisor = 1
    elif reduction == "mean_with_sample_weight" and weight is not None:
        divisor = weight.sum()
    else:
        divisor = weighted.size

    def vjp(dloss: Array) -> Array:
        dweighted = np.broadcast_to(dloss / divisor, weighted.shape)
        return dweighted if weight is None else dweighted * weight

    return weighted.sum() / divisor, vjp


def same_rank(y_true: np.ndarray, y_pred: Array) -> tuple[np.ndarray, Array]:
    """Return targets and predictions with a last axis of length 1 added or dropped to match.

    As squeeze_or_expand_to_same_rank in keras/src/losses/loss.py: targets (N,) meet predictions
    (N, 1) as (N, 1), and the other way round; in higher ranks the longer one is squeezed.
    """
    if y_true.ndim == y_pred.ndim + 1 and y_true.shape[-1] == 1:
        if y_pred.ndim == 1:
            return y_true, y_pred.reshape(-1, 1)
        return y_true.reshape(y_true.shape[:-1]), y_pred
    if y_pred.ndim == y_true.ndim + 1 and y_pred.shape[-1] == 1:
        if y_true.ndim == 1:
            return y_true.reshape(-1, 1), y_pred
        return y_true, y_pred.reshape(y_pred.shape[:-1])
    return y_true, y_pred
