"""Attention: scores of queries and keys, masks, weighted values."""

import functools
from collections.abc import Callable, Iterable

import numpy as np

from gradaudit.numerics.arithmetic import Array
from gradaudit.rules.primitives.contraction import contract

Vjp = Callable[[Array], Array]
WeightedVjp = Callable[[Array, Array | None], tuple[Array, Array]]


def visible(
    lengths: tuple[int, int],
    causal: bool = False,
    window: int | None = None,
    query: np.ndarray | None = None,
    keys: Iterable[np.ndarray] = (),
    pairs: np.ndarray | None = None,
) -> np.ndarray | None:
    """Return which keys a query may look at, (N, T, S) or broadcast to that; None for all.

    lengths: T and S. causal: keys up to the query's position. window: keys less than that many
    positions away. query (N, T) and keys (N, S): masks of these. pairs: a mask of all scores; it
    is returned as it was given where nothing else restricts them.
    """
    parts = []
    ahead = np.arange(lengths[0])[None, :, None] - np.arange(lengths[1])
    if query is not None:
        parts.append(query.astype(bool)[..., :, None])
    parts += [mask.astype(bool)[..., None, :] for mask in keys]
    if causal:
        parts.append(ahead >= 0)
    if window is not None:
        parts.append(np.abs(ahead) < window)
    if pairs is not None:
        parts.append(pairs)
    return functools.reduce(np.logical_and, parts) if parts else None


def spread(mask: np.ndarray, scores: int, query: int) -> np.ndarray:
    """Return a mask with an axis of length 1 for each further axis of the scores, such as heads.

    scores, query: the numbers of their axes. The mask's last axes are those that attention goes
    over, of the queries and of the keys.
    """
    attended = scores - query + 1
    at = mask.ndim - 2 * attended
    return np.expand_dims(mask, tuple(range(at, at + scores - mask.ndim)))


def pair_sums(query: Array, key: Array) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """Return q + k for each pair, (N, ..., T, S, I), and the VJP: (Σₛ dy, Σₜ dy)."""
    sums = query[..., :, None, :] + key[..., None, :, :]
    return sums, lambda dsums: (dsums.sum(axis=-2), dsums.sum(axis=-3))


def weighted(
    equation: str,
    scores: Array,
    value: Array,
    softmax: Callable[[Array], tuple[Array, Vjp]],
    drop: Callable[[Array], tuple[Array, Vjp]] = lambda weights: (weights, lambda dy: dy),
) -> tuple[Array, Array, WeightedVjp]:
    """Return y = drop(W) value, W = softmax(scores), and vjp(dy, dW) to (dscores, dvalue).

    equation: of the product of W and value. softmax, drop: an array to (y, vjp). dW: None where W
    is not an output.
    VJP: ddrop = dy valueᵀ; dvalue = drop(W)ᵀ dy; dscores = softmax's VJP at drop's VJP + dW.
    """
    weights, softmax_vjp = softmax(scores)
    kept, drop_vjp = drop(weights)
    y, values_vjp = contract(equation, kept, value)

    def vjp(dy: Array, dweights: Array | None) -> tuple[Array, Array]:
        dkept, dvalue = values_vjp(dy)
        through = drop_vjp(dkept)
        return softmax_vjp(through if dweights is None else through + dweights), dvalue

    return y, weights, vjp
