"""How a Keras loss makes one number out of the losses of the samples."""

from collections.abc import Callable

import numpy as np

from gradaudit.numerics.arithmetic import Array

REDUCTIONS = ("sum_over_batch_size", "mean", "sum", "mean_with_sample_weight")


def reduce_losses(
    call, losses: Array, sample_weight: np.ndarray | None, reduction: str, replicas: int = 1
) -> tuple[Array, Callable[[Array], Array]]:
    """Return L = Σ w ℓ / (d R) and its VJP, as keras/src/losses/loss.py reduces.

    R is the number of replicas, and 1 for "sum". A single loss ℓ () is taken as it is.

    Shapes: ℓ (N, ...), w (N,) or as ℓ, L ().
    VJP:    dℓ = w dL / (d R); d is the number of losses, whatever the weights; 1 for "sum"; Σ w for
            "mean_with_sample_weight", where L is 0 if Σ w is.
    """
    weight = None
    if sample_weight is not None:
        weight = call.array(sample_weight)
        if weight.ndim == losses.ndim + 1 and weight.shape[-1] == 1:
            weight = weight.reshape(losses.shape)
        elif weight.ndim < losses.ndim and losses.shape[-1] == 1:
            weight = weight.reshape(*weight.shape, 1)
    weighted = losses if weight is None else losses * weight
    if weighted.ndim == 0:
        return weighted, lambda dloss: dloss if weight is None else dloss * weight
    divisor, scale = 1, 1.0
    if reduction != "sum":
        divisor = weighted.size or 1  # the loss of no rows, as a replica may get them, is 0
        if reduction == "mean_with_sample_weight" and weight is not None:
            divisor = weight.sum()
        if replicas > 1:
            scale = call.array(1.0 / replicas)

    def divided(total: Array) -> Array:
        if isinstance(divisor, int):
            return total / max(divisor, 1)  # no losses at all make 0
        return np.where(divisor == 0, 0.0, total / np.where(divisor == 0, 1.0, divisor))

    def vjp(dloss: Array) -> Array:
        dweighted = np.broadcast_to(divided(dloss * scale), weighted.shape)
        return dweighted if weight is None else dweighted * weight

    return divided(weighted.sum()) * scale, vjp


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
