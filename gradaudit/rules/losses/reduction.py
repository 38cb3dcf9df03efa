"""How a Keras loss reduces the losses of the samples to one number."""

from collections.abc import Callable

import numpy as np

from gradaudit.numerics.arithmetic import Array

REDUCTIONS = ("sum_over_batch_size", "mean", "sum", "mean_with_sample_weight")


def reduce_losses(
    call,
    losses: Array,
    sample_weight: np.ndarray | None,
    reduction: str | None,
    replicas: int = 1,
    mask: np.ndarray | None = None,
) -> tuple[Array, Callable[[Array], Array]]:
    """Return L = Σ w ℓ / (d R) and its VJP, as keras/src/losses/loss.py reduces.

    R is the number of replicas, and 1 for "sum". A single loss ℓ () is returned as it is. A mask
    sets w to 0 where it is false. A mean is then over the true elements: w is multiplied by (number
    of elements / number of true ones), or by 0 if none is true.

    Shapes: ℓ (N, ...), w and mask (N,) or as ℓ, L (). Where w has more axes, ℓ is repeated.
    VJP:    dℓ = w dL / (d R); d is the number of losses, whatever the weights; 1 for "sum"; Σ w for
            "mean_with_sample_weight", where L is 0 if Σ w is. Where ℓ was repeated, the sum of dℓ.
    """
    weight = None if sample_weight is None else call.array(sample_weight)
    if mask is not None:
        weight = _masked(call, weight, mask, reduction)
    ranked = losses
    if weight is not None:
        ranked, weight = same_rank(losses, weight)
    weighted = ranked if weight is None else ranked * weight
    if weighted.ndim == 0:
        return weighted, lambda dloss: dloss if weight is None else dloss * weight
    divisor: int | Array = 1
    scale: float | Array = 1.0
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
        dranked = dweighted if weight is None else dweighted * weight
        return _unrepeated(dranked, ranked.shape).reshape(losses.shape)

    return divided(weighted.sum()) * scale, vjp


def _masked(call, weight: Array | None, mask: np.ndarray, reduction: str | None) -> Array:
    """Return the sample weights times those of a mask, or the mask's alone if there are none."""
    share = call.array(1.0)
    if reduction in ("sum_over_batch_size", "mean"):
        valid = float(mask.sum())
        share = call.array(float(mask.size) if valid else 0.0) / call.array(valid or 1.0)
    shares: Array = np.where(mask, share, 0.0)
    if weight is None:
        return shares
    shares, weight = same_rank(shares, weight)
    return weight * shares


def _unrepeated(cotangent: Array, shape: tuple[int, ...]) -> Array:
    """Return the sum over the axes along which an array of `shape` was repeated."""
    added = cotangent.ndim - len(shape)
    stretched = [
        added + i for i, n in enumerate(shape) if n == 1 and cotangent.shape[added + i] > 1
    ]
    axes = (*range(added), *stretched)
    return cotangent.sum(axis=axes).reshape(shape) if axes else cotangent


def along(cotangent: Array, axis: int | tuple[int, ...] | None) -> Array:
    """Return the cotangent of a sum over an axis, over several or over all (None), for its terms.

    Shapes: those axes have the length 1.
    """
    return cotangent if axis is None else np.expand_dims(cotangent, axis)


def same_rank(y_true: Array, y_pred: Array) -> tuple[Array, Array]:
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
