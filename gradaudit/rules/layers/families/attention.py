"""Attention layers: their masks, their parts, and how Keras computes dot-product attention."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import activations

from gradaudit import keras_compat
from gradaudit.numerics.arithmetic import Array
from gradaudit.rules.context import LayerCall, apply_activation, summed
from gradaudit.rules.declaration import KeptLogits
from gradaudit.rules.layers.families.dropout import dropped
from gradaudit.rules.primitives.attention import Vjp, spread, visible, weighted
from gradaudit.rules.primitives.contraction import contract

Cotangents = dict[str, Array]
Heads = tuple[Array, Array, Array]
"""Query, key and value."""
HeadsVjp = Callable[[Array, Array | None], tuple[Array, ...]]

_FAR_BELOW = -(2.0**100)
"""In the place of Keras's 0.7 of the largest number below 0, whose exponential is 0 as well."""


def scores_keep_logits(layer: Any, place: int) -> KeptLogits | None:
    """Keras keeps logits on the scores that attention returns: a softmax made them."""
    return "unknown" if place == 1 else None


# Attention and AdditiveAttention


def query_mask(call: LayerCall, x: tuple[Array, ...], mask: list | None) -> np.ndarray | None:
    """Return the output's mask: that of the query, the first of several."""
    return None if mask is None else mask[0]


def attend(
    call: LayerCall,
    x: tuple[Array, ...],
    scores: Array,
    scores_vjp: Callable[[Array], tuple[tuple[Array, Array], Cotangents]],
) -> tuple[Any, Callable[[Any], tuple[tuple[Array, ...], Cotangents]]]:
    """Return y = drop(softmax(scores)) v and the VJP; with softmax(scores) where it is asked for.

    x: query, value and, unless value serves, key. scores_vjp: dscores to ((dquery, dkey),
    cotangents). Masked scores are lowered by 10⁹, and y is 0 for a masked query.
    """
    of_query, of_value = (call.arguments.get("mask") or (None, None))[:2]
    shown = _scores_shown(scores.shape, of_value, bool(call.arguments.get("use_causal_mask")))
    if shown is not None:
        # 6e4 in place of Keras's 65504, to which scores cannot be added in float16.
        far = 6e4 if call.dtype == "float16" else 1e9
        scores = np.where(shown, scores, scores - far)
    y, weights, weighted_vjp = weighted(
        "...ts,...sd->...td", scores, x[1], functools.partial(_dropped_softmax, call)
    )
    kept = None if of_query is None else of_query.astype(bool)[..., None]
    asked = bool(call.arguments.get("return_attention_scores"))

    def vjp(dy: Any) -> tuple[tuple[Array, ...], Cotangents]:
        dy, dweights = dy if asked else (dy, None)
        dscores, dvalue = weighted_vjp(dy if kept is None else np.where(kept, dy, 0.0), dweights)
        (dquery, dkey), cotangents = scores_vjp(dscores)
        return (dquery, dvalue, dkey) if len(x) == 3 else (dquery, dvalue + dkey), cotangents

    y = y if kept is None else np.where(kept, y, 0.0)
    return (y, weights) if asked else y, vjp


def _dropped_softmax(call: LayerCall, scores: Array) -> tuple[Array, Vjp]:
    weights, softmax_vjp = apply_activation(activations.softmax, scores)
    y, dropout_vjp = dropped(call, weights, call.layer.dropout)
    return y, lambda dy: softmax_vjp(dropout_vjp(dy)[0])


def _scores_shown(
    scores: tuple[int, ...], of_value: np.ndarray | None, causal: bool
) -> np.ndarray | None:
    """Return which scores count, or None for all; the shape is broadcast to that of the scores."""
    if of_value is not None:
        of_value = of_value.astype(bool)
        if causal or of_value.ndim == 2:
            of_value = of_value[..., None, :]
    before = visible((scores[-2], scores[-1]), causal)
    if before is None or of_value is None:
        return of_value if before is None else before
    return of_value & before


# MultiHeadAttention and GroupQueryAttention


def keys_shown(call: LayerCall, x: tuple[Array, ...], window: int | None) -> np.ndarray | None:
    """Return which keys a query may look at, by the masks of the call: see `visible`.

    Positions are those along the second axis, whatever axes attention goes over.
    """
    given = call.arguments
    keys = [given[name] for name in ("value_mask", "key_mask") if given.get(name) is not None]
    return visible(
        (x[0].shape[1], x[1].shape[1]),
        bool(given.get("use_causal_mask")),
        window,
        given.get("query_mask"),
        keys,
        given.get("attention_mask"),
    )


def output_masks(
    call: LayerCall, x: tuple[Array, ...], mask: np.ndarray | None, window: int | None, axes: int
) -> Any:
    """Return the masks of y and, where they are asked for, of the weights.

    y has the mask of the query; the weights have the mask that softmax was given. axes: how many
    attention goes over.
    """
    if not call.arguments.get("return_attention_scores"):
        return mask
    seen, query = keys_shown(call, x, window), x[0].ndim + 1
    return mask, None if seen is None else spread(seen, query + axes - 1, query)


def attend_by_heads(
    call: LayerCall,
    x: tuple[Array, ...],
    attention: Callable[[Array, Array, Array], tuple[Array, Array | None, HeadsVjp]],
) -> tuple[Any, Callable[[Any], tuple[tuple[Array, ...], Cotangents]]]:
    """Return y = output(gate · attention(query, key, value)) and the VJP; with the weights, if any.

    x: query, value and, unless value serves, key. attention: (query, key, value) with heads to
    (y, weights or None, vjp(dy, dweights) to (dquery, dkey, dvalue)).
    """
    parts = keras_compat.attention_parts(call.layer)
    gated = parts.gate is not None
    query, query_vjp = call.within(parts.query, x[0])
    key, key_vjp = call.within(parts.key, x[-1])
    value, value_vjp = call.within(parts.value, x[1])
    mixed, weights, attention_vjp = attention(query, key, value)
    if gated:
        gate, gate_vjp = call.within(parts.gate, x[0])
    y, output_vjp = call.within(parts.output, mixed * gate if gated else mixed)

    def vjp(dy: Any) -> tuple[tuple[Array, ...], Cotangents]:
        dy, dweights = (dy, None) if weights is None else dy
        dmixed, of_output = output_vjp(dy)
        dquery, dkey, dvalue = attention_vjp(dmixed * gate if gated else dmixed, dweights)
        (dq, of_query), (dk, of_key) = query_vjp(dquery), key_vjp(dkey)
        dv, of_value = value_vjp(dvalue)
        cotangents = summed(of_output, of_query, of_key, of_value)
        if gated:
            dgated, of_gate = gate_vjp(dmixed * mixed)
            dq, cotangents = dq + dgated, summed(cotangents, of_gate)
        return (dq, dv + dk) if len(x) == 2 else (dq, dv, dk), cotangents

    return y if weights is None else (y, weights), vjp


def dot_product_attention(
    call: LayerCall,
    equations: tuple[str, str],
    scale: float,
    heads: Heads,
    mask: np.ndarray | None,
    rate: float,
) -> tuple[Array, Array | None, HeadsVjp]:
    """Return y = softmax(scale query keyᵀ) value, the weights if asked for, and vjp(dy, dweights).

    equations: key and query to scores, weights and value to y. rate: of the dropout on the weights.
    Keras has one operation for all of it, and goes step by step where that cannot do what is asked.
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
    heads: Heads,
    mask: np.ndarray | None,
) -> tuple[Array, Array, HeadsVjp]:
    """Scale the query; softmax and dropout are those of the layer's parts."""
    query, key, value = heads
    factor = _held(call, scale, call.dtype)
    scores, scores_vjp = contract(equations[0], key, query * factor)

    def part(layer: Any, x: Array, **arguments: Any) -> tuple[Array, Vjp]:
        y, vjp = call.within(layer, x, None, **arguments)
        return y, lambda dy: vjp(dy)[0]

    given = {} if mask is None else {"mask": spread(mask, scores.ndim, query.ndim)}
    parts = keras_compat.attention_parts(call.layer)
    softmax = functools.partial(part, parts.softmax, **given)
    drop = functools.partial(part, parts.dropout)
    y, weights, weighted_vjp = weighted(equations[1], scores, value, softmax, drop)

    def vjp(dy: Array, dweights: Array | None) -> tuple[Array, Array, Array]:
        dscores, dvalue = weighted_vjp(dy, dweights)
        dkey, dquery = scores_vjp(dscores)
        return dquery * factor, dkey, dvalue

    return y, weights, vjp


def _at_once(
    call: LayerCall, scale: float, heads: Heads, mask: np.ndarray | None
) -> tuple[Array, None, HeadsVjp]:
    """Scale the scores, which are in float32 at least: keras.ops.dot_product_attention."""
    query, key, value = heads
    cast, wide = call.arithmetic.cast, call.dtype if call.dtype == "float64" else "float32"
    factor = _held(call, scale, wide)
    products, products_vjp = contract("BSNH,BTNH->BNTS", key, query)
    hidden = None if mask is None else ~spread(mask, 4, 4).astype(bool)

    def softmax(scores: Array) -> tuple[Array, Vjp]:
        shown = scores if hidden is None else np.where(hidden, _FAR_BELOW, scores)
        weights, vjp = apply_activation(activations.softmax, shown)

        def masked_vjp(dweights: Array) -> Array:
            dscores = vjp(cast(dweights, wide))
            return dscores if hidden is None else np.where(hidden, 0.0, dscores)

        return cast(weights, call.dtype), masked_vjp

    scores = cast(products, wide) * factor
    y, _, weighted_vjp = weighted("BNTS,BSNH->BTNH", scores, value, softmax)

    def vjp(dy: Array, dweights: Array | None) -> tuple[Array, Array, Array]:
        dscores, dvalue = weighted_vjp(dy, dweights)
        dkey, dquery = products_vjp(cast(dscores * factor, call.dtype))
        return dquery, dkey, dvalue

    return y, None, vjp


def _held(call: LayerCall, number: float, dtype: str) -> Array:
    """Return a Python number as TensorFlow casts it: it makes it a float32 first."""
    return call.arithmetic.array(float(np.float32(number)), dtype)
