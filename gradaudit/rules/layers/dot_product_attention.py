"""Attention from queries, keys and values on: scores, masks, softmax, dropout, weighted values."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import activations

from gradaudit.numerics.arithmetic import Array
from gradaudit.rules.context import LayerCall, apply_activation
from gradaudit.rules.primitives.contraction import contract

_FAR_BELOW = -(2.0**100)
"""In the place of Keras's 0.7 of the largest number below 0, whose exponential is 0 as well."""


def visible(call: LayerCall, x: tuple[Array, ...], window: int | None) -> np.ndarray | None:
    """Return which keys a query may look at, (N, T, S) or broadcast to that; None for all.

    An attention mask that stands alone is returned as it was given. Positions are those along the
    second axis, whatever axes attention goes over.
    """
    given, parts = call.arguments, []
    ahead = np.arange(x[0].shape[1])[None, :, None] - np.arange(x[1].shape[1])
    if given.get("query_mask") is not None:
        parts.append(given["query_mask"].astype(bool)[..., :, None])
    for name in ("value_mask", "key_mask"):
        if given.get(name) is not None:
            parts.append(given[name].astype(bool)[..., None, :])
    if given.get("use_causal_mask"):
        parts.append(ahead >= 0)
    if window is not None:
        parts.append(np.abs(ahead) < window)
    if given.get("attention_mask") is not None:
        parts.append(given["attention_mask"])
    return functools.reduce(np.logical_and, parts) if parts else None


def output_masks(
    call: LayerCall, x: tuple[Array, ...], mask: np.ndarray | None, window: int | None, axes: int
) -> Any:
    """Return the masks of y and, where they are asked for, of the weights.

    y has that of the query; the weights have that which softmax was given. axes: how many attention
    goes over.
    """
    if not call.arguments.get("return_attention_scores"):
        return mask
    seen, query = visible(call, x, window), x[0].ndim + 1
    return mask, None if seen is None else _spread(seen, query + axes - 1, query)


def weighted(
    equation: str,
    scores: Array,
    value: Array,
    softmax: Callable,
    drop: Callable = lambda weights: (weights, lambda dy: dy),
) -> tuple[Array, Array, Callable]:
    """Return y = drop(softmax(scores)) value, softmax(scores), and vjp(dy, dweights).

    The VJP, where dweights may be None, returns (dscores, dvalue).
    """
    weights, softmax_vjp = softmax(scores)
    kept, drop_vjp = drop(weights)
    y, values_vjp = contract(equation, kept, value)

    def vjp(dy: Array, dweights: Array | None) -> tuple[Array, Array]:
        dkept, dvalue = values_vjp(dy)
        through = drop_vjp(dkept)
        return softmax_vjp(through if dweights is None else through + dweights), dvalue

    return y, weights, vjp


def dot_product_attention(
    call: LayerCall,
    equations: tuple[str, str],
    scale: float,
    heads: tuple[Array, Array, Array],
    mask: np.ndarray | None,
    rate: float,
) -> tuple[Array, Array | None, Callable]:
    """Return y = softmax(scale query keyᵀ) value, the weights if asked for, and vjp(dy, dweights).

    heads: query, key and value. equations: key and query to scores, weights and value to y.
    rate: of the dropout on the weights. Keras has one operation for all of it, and goes step by
    step where that would not do.
    """
    asked = bool(call.arguments.get("return_attention_scores"))
    if rate > 0 or asked or heads[0].ndim != 4:
        y, weights, vjp = _in_steps(call, equations, scale, heads, mask)
        return y, weights if asked else None, vjp
    return _at_once(call, scale, heads, mask)


def _in_steps(
    call: LayerCall,
    equations: tuple[str, str],
    scale: float,
    heads: tuple[Array, Array, Array],
    mask: np.ndarray | None,
) -> tuple[Array, Array, Callable]:
    """Scale the query; softmax and dropout are those of the layer's parts."""
    query, key, value = heads
    factor = _held(call, scale, call.dtype)
    scores, scores_vjp = contract(equations[0], key, query * factor)

    def part(layer: object, x: Array, **arguments: Array) -> tuple[Array, Callable]:
        y, vjp = call.within(layer, x, **arguments)
        return y, lambda dy: vjp(dy)[0]

    given = {} if mask is None else {"mask": _spread(mask, scores.ndim, query.ndim)}
    softmax = functools.partial(part, call.layer._softmax, **given)
    drop = functools.partial(part, call.layer._dropout_layer)
    y, weights, weighted_vjp = weighted(equations[1], scores, value, softmax, drop)

    def vjp(dy: Array, dweights: Array | None) -> tuple[Array, Array, Array]:
        dscores, dvalue = weighted_vjp(dy, dweights)
        dkey, dquery = scores_vjp(dscores)
        return dquery * factor, dkey, dvalue

    return y, weights, vjp


def _at_once(
    call: LayerCall, scale: float, heads: tuple[Array, Array, Array], mask: np.ndarray | None
) -> tuple[Array, None, Callable]:
    """Scale the scores, which are in float32 at least: keras.ops.dot_product_attention."""
    query, key, value = heads
    cast, wide = call.arithmetic.cast, call.dtype if call.dtype == "float64" else "float32"
    factor = _held(call, scale, wide)
    products, products_vjp = contract("BSNH,BTNH->BNTS", key, query)
    hidden = None if mask is None else ~_spread(mask, 4, 4).astype(bool)

    def softmax(scores: Array) -> tuple[Array, Callable]:
        shown = scores if hidden is None else np.where(hidden, _FAR_BELOW, scores)
        weights, vjp = apply_activation(activations.softmax, shown)

        def masked_vjp(dweights: Array) -> Array:
            dscores = vjp(cast(dweights, wide))
            return dscores if hidden is None else np.where(hidden, 0.0, dscores)

        return cast(weights, call.dtype), masked_vjp

    scores = cast(products, wide) * factor
    y, _, weighted_vjp = weighted("BNTS,BSNH->BTNH", scores, value, softmax)

    def vjp(dy: Array, dweights: None) -> tuple[Array, Array, Array]:
        dscores, dvalue = weighted_vjp(dy, dweights)
        dkey, dquery = products_vjp(cast(dscores * factor, call.dtype))
        return dquery, dkey, dvalue

    return y, None, vjp


def _held(call: LayerCall, number: float, dtype: str) -> Array:
    """Return a Python number as TensorFlow casts it: it makes it a float32 first."""
    return call.arithmetic.array(float(np.float32(number)), dtype)


def _spread(mask: np.ndarray, scores: int, query: int) -> np.ndarray:
    """Return a mask with an axis of length 1 for each that scores have besides.

    scores, query: the numbers of their axes. Those of attention are the mask's last, twice as many.
    """
    attended = scores - query + 1
    at = mask.ndim - 2 * attended
    return np.expand_dims(mask, tuple(range(at, at + scores - mask.ndim)))
